"""Attacks on the sums behind a ridge regression: rows, inputs, membership, noise."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
from scipy import stats

from unlearn_jax.evaluation.membership import threshold_attack
from unlearn_jax.evaluation.state_privacy import (
    Removed,
    StateAttacks,
    invert_random_features,
    membership_from_state,
    reconstruct_removed,
    recovery,
    separate_rows,
    state_attacks,
)
from unlearn_jax.methods.state_noise import (
    clip_rows,
    noise_multiplier,
    noisy_ridge,
    noisy_statistics,
)
from unlearn_jax.models.random_features import ROW_STEP, expand, random_kernel
from unlearn_jax.solvers.ridge_gram import gram_add, gram_remove, gram_start
from unlearn_jax.types import Array, Batch, PRNGKey

RELEASES = 2
"""The attacker sees the state before and after the deletion."""
FOUND = 1e-2
"""A row counts as found up to this relative error."""
_ACTIVE = 0.02
"""Below this share of a row's largest number, a guess counts as zero."""
_CLIP = 1.25
"""Bound of a row's norm over √(M / 2), its size for a unit input; knows no data."""


class Examples(NamedTuple):
    """Value: unit features (n, d) and one-hot targets (n, k), in numpy."""

    unit: np.ndarray
    targets: np.ndarray

    def at(self, chosen: Any) -> "Examples":
        """Some of them."""
        return Examples(self.unit[chosen], self.targets[chosen])


class Guessed(NamedTuple):
    """Value: what an attacker made of deleted rows, in the order of the true ones.

    Attributes:
        row_error: Relative, of each row.
        label_right: Whether its label came out.
        inputs: Unit inputs found behind the rows.
        input_error: Relative, of each.
        cosine: Of each row.
    """

    row_error: np.ndarray
    label_right: np.ndarray
    inputs: np.ndarray
    input_error: np.ndarray
    cosine: np.ndarray


class Memberships(NamedTuple):
    """Value: attacks against rows that no state has seen.

    Attributes:
        within: On rows within, by the state after the deletion.
        before: On the rows to be deleted, by the state before.
        deleted: On the same rows, by the state after.
        equal: Whether the state after is, bit for bit, one that never had them.
    """

    within: StateAttacks
    before: StateAttacks
    deleted: StateAttacks
    equal: bool


class Noisy(NamedTuple):
    """Value: what noise for one epsilon does.

    Attributes:
        multiplier: Noise in units of the sensitivity.
        accuracies: On the test set (%), for each draw.
        within: Residual attack on rows within: AUC and its error.
        cosines: Of one deleted row with the guess, for each draw.
        row_errors: Relative, for each draw.
        inputs: Found behind the guesses, where asked for.
        strongest: AUC that no attacker passes, whatever else they know.
    """

    multiplier: float
    accuracies: np.ndarray
    within: tuple[float, float]
    cosines: np.ndarray
    row_errors: np.ndarray
    inputs: np.ndarray
    strongest: float


def rows_of(examples: Examples, kernel: Array) -> Batch:
    """What a ridge regression learns of examples."""
    rows = np.asarray(_expand(examples.unit, kernel))
    return Batch(rows, examples.targets, np.ones(len(rows)))


class Deletions(NamedTuple):
    """Description: a state that has learnt everything, and its attacker.

    Attributes:
        kernel: Of the random features; the attacker knows it.
        data: All examples within.
        before: State of the ridge regression.
        most: Largest deletion (count).
    """

    kernel: Array
    data: Examples
    before: Any
    most: int


def learn_all(key: PRNGKey, data: Examples, *, width: int, most: int) -> Deletions:
    """Learn everything; deletions of at most ``most`` rows follow."""
    kernel = random_kernel(key, data.unit.shape[1], width)
    start = gram_start(width, data.targets.shape[1], l2=1.0)
    return Deletions(kernel, data, _learn(start, rows_of(data, kernel)), most)


def reconstruct(
    key: PRNGKey, deletions: Deletions, chosen: np.ndarray, *, starts: int, steps: int
) -> Guessed:
    """Delete rows, and let the attacker find them in the two states' difference."""
    kernel, data, before, most = deletions
    asked = rows_of(data.at(chosen), kernel)
    extra = most - len(chosen)
    padded = Batch(*(_padded(leaf, extra) for leaf in asked))
    after = _forget(before, padded)
    states = (before.gram, after.gram, before.moment, after.moment)
    removed = _reconstruct(len(chosen))(*states)
    if len(chosen) > 1:
        removed = _separate(starts, steps)(key, removed)
    return judge(removed, kernel, data.at(chosen), asked)


def judge(removed: Removed, kernel: Array, true: Examples, rows: Batch) -> Guessed:
    """Compare guesses with the truth; a label is the largest number of a target."""
    told = recovery(removed, rows.inputs, rows.targets)
    order = _order(removed, rows)
    found = np.asarray(removed.rows)[order]
    inputs = invert(kernel, found)
    label = np.argmax(np.asarray(removed.targets)[order], 1)
    error = np.linalg.norm(inputs - true.unit, axis=1)
    right = label == np.argmax(true.targets, 1)
    return Guessed(told.row_error, right, inputs, error, told.cosine)


def invert(kernel: Array, rows: np.ndarray) -> np.ndarray:
    """Inputs behind rows; small numbers count as zero, for they may have been it."""
    largest = np.max(rows, axis=1, keepdims=True)
    cleaned = np.where(rows > _ACTIVE * largest, rows, 0)
    return np.concatenate([np.asarray(_invert(kernel, row[None])) for row in cleaned])


def memberships(
    key: PRNGKey, groups: Sequence[Examples], *, width: int, l2: float
) -> Memberships:
    """Attack the state before and after a deletion.

    Args:
        key: Draws the random features.
        groups: Examples that stay, that are learnt and deleted, that are never seen.
        width: Random features.
        l2: Ridge.
    """
    kernel = random_kernel(key, groups[0].unit.shape[1], width)
    together = Examples(*(np.concatenate(part) for part in zip(*groups, strict=True)))
    rows, ends = rows_of(together, kernel), np.cumsum([len(g.unit) for g in groups])
    kept, deleted, never = (
        Batch(*(leaf[part] for leaf in rows))
        for part in (slice(ends[0]), slice(ends[0], ends[1]), slice(ends[1], None))
    )
    full = _sums(Batch(*(leaf[: ends[1]] for leaf in rows)))
    after = tuple(a - b for a, b in zip(full, _sums(deleted), strict=True))
    equal = all(np.array_equal(a, b) for a, b in zip(after, _sums(kept), strict=True))
    inside = Batch(*(leaf[: len(never.weights)] for leaf in kept))  # one size for all

    def scores(state: Any, count: int, candidates: Batch) -> Any:
        return _membership(*state, float(count), l2, candidates)

    n, m = int(ends[0]), int(ends[1])
    unseen_after, unseen_before = scores(after, n, never), scores(full, m, never)
    return Memberships(
        state_attacks(key, scores(after, n, inside), unseen_after),
        state_attacks(key, scores(full, m, deleted), unseen_before),
        state_attacks(key, scores(after, n, deleted), unseen_after),
        equal,
    )


class Release(NamedTuple):
    """Description: what is released with noise, and who looks at it.

    Attributes:
        kernel: Of the random features.
        deleted: Examples that are within and deleted, one at a time.
        within: Clipped rows that stay.
        never: Clipped rows never seen.
        test: Clipped rows of the test set.
        sums: Of everything within, clipped.
        row_norm: Bound of a row's norm.
    """

    kernel: Array
    deleted: Examples
    within: Batch
    never: Batch
    test: Batch
    sums: tuple[np.ndarray, ...]
    row_norm: float


def prepare_release(
    key: PRNGKey, groups: Sequence[Examples], test: Examples, *, width: int
) -> Release:
    """Clip rows to a norm that depends on no data, and sum them."""
    kernel = random_kernel(key, test.unit.shape[1], width)
    row_norm = _CLIP * (width / 2) ** 0.5
    kept, deleted, never = (_clipped(group, kernel, row_norm) for group in groups)
    sums = tuple(a + b for a, b in zip(_sums(kept), _sums(deleted), strict=True))
    asked = _clipped(test, kernel, row_norm)
    return Release(kernel, groups[1], kept, never, asked, sums, row_norm)


def release(
    key: PRNGKey, what: Release, epsilon: float, delta: float, *, l2: float, draws: int
) -> Noisy:
    """Release the state before and after one deletion, and attack both.

    Args:
        key: Draws the noise.
        what: From :func:`prepare_release`.
        epsilon: Privacy loss of both releases together; infinite: no noise.
        delta: Probability with which it may fail.
        l2: Ridge.
        draws: Repetitions, each with other noise and another deleted row.
    """
    exact = np.isinf(epsilon)
    z = 0.0 if exact else noise_multiplier(epsilon, delta, releases=RELEASES)
    deleted = what.deleted
    accuracies, cosines, errors, inputs, areas = [], [], [], [], []
    for draw in range(draws):
        one = deleted.at([draw % len(deleted.unit)])
        row = _clipped(one, what.kernel, what.row_norm)
        left = tuple(a - b for a, b in zip(what.sums, _sums(row), strict=True))
        keys = jax.random.split(jax.random.fold_in(key, draw), 3)
        before, after = (
            _noisy(what.row_norm)(k, *sums, z)
            for k, sums in zip(keys[:2], (what.sums, left), strict=True)
        )
        found = _ridge(after, l2)
        guesses = np.argmax(what.test.inputs @ np.asarray(found), 1)
        right = guesses == np.argmax(what.test.targets, 1)
        accuracies.append(100 * float(np.mean(right)))
        states = (before.gram, after.gram, before.moment, after.moment)
        guess = judge(_reconstruct(1)(*states), what.kernel, one, row)
        cosines.append(guess.cosine[0])
        errors.append(guess.row_error[0])
        inputs.append(guess.inputs[0])
        missed = [
            -_missed(rows, np.asarray(found)) for rows in (what.within, what.never)
        ]
        areas.append(_area(keys[2], *missed))
    strongest = 1.0 if exact else float(stats.norm.cdf(RELEASES**0.5 / z / 2**0.5))
    return Noisy(
        z,
        np.array(accuracies),
        (float(np.mean([a for a, _ in areas])), float(np.mean([e for _, e in areas]))),
        np.array(cosines),
        np.array(errors),
        np.array(inputs),
        strongest,
    )


def _area(key: PRNGKey, members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    attack = threshold_attack(key, members, others)
    return attack.auc, attack.auc_error


def _missed(rows: Batch, weight: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(rows.targets) - rows.inputs @ weight, axis=1)


def _clipped(examples: Examples, kernel: Array, row_norm: float) -> Batch:
    rows = rows_of(examples, kernel)
    clipped = clip_rows(rows, row_norm=row_norm, target_norm=1.0, grid=ROW_STEP)
    return Batch(*map(np.asarray, clipped))


def _sums(rows: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Exact: rows are multiples of 2⁻¹⁶ below 16, and 53 bits hold their sums."""
    x, y = np.asarray(rows.inputs), np.asarray(rows.targets)
    return x.T @ x, x.T @ y


def _order(removed: Removed, rows: Batch) -> np.ndarray:
    """Which guess is nearest to each true row, one to one."""
    found, true = np.asarray(removed.rows), np.asarray(rows.inputs)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    cosines = found @ true.T / np.where(lengths > 0, lengths, 1)
    cosines = cosines / np.linalg.norm(true, axis=1)
    chosen, matched = scipy.optimize.linear_sum_assignment(-cosines)
    return chosen[np.argsort(matched)]


def _padded(leaf: Any, extra: int) -> np.ndarray:
    leaf = np.asarray(leaf)
    return np.pad(leaf, ((0, extra), *((0, 0),) * (leaf.ndim - 1)))


_expand = jax.jit(expand)
_invert = jax.jit(lambda kernel, rows: invert_random_features(kernel, rows).inputs)
_membership = jax.jit(membership_from_state)
_learn = jax.jit(functools.partial(gram_add, slices=1, solve=False))
_forget = jax.jit(functools.partial(gram_remove, slices=1, solve=False))
_ridge = jax.jit(lambda statistics, l2: noisy_ridge(statistics, l2=l2))


@functools.cache
def _noisy(row_norm: float) -> Any:
    norms = {"row_norm": row_norm, "target_norm": 1.0}
    return jax.jit(
        lambda key, g, q, z: noisy_statistics(key, g, q, **norms, multiplier=z)
    )


@functools.cache
def _reconstruct(rank: int) -> Any:
    return jax.jit(functools.partial(reconstruct_removed, rank=rank))


@functools.cache
def _separate(starts: int, steps: int) -> Any:
    return jax.jit(functools.partial(separate_rows, starts=starts, steps=steps))
