"""What a state reveals: attacks against rows that are known, in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.evaluation.state_privacy import (
    Removed,
    invert_random_features,
    membership_from_state,
    reconstruct_removed,
    recovery,
    separate_rows,
    state_attacks,
)
from unlearn_jax.types import Batch

D, F, K, L2 = 10, 40, 4, 0.5
GRID = 2.0**-16
ROWS = 4
KERNEL = np.random.default_rng(0).normal(size=(D, F)) / D**0.5


invert = tiny.quick_jit(invert_random_features)
separate = tiny.quick_jit(separate_rows)
judge = tiny.quick_jit(membership_from_state)


@functools.cache
def compiled(rank):
    return tiny.quick_jit(functools.partial(reconstruct_removed, rank=rank))


def reconstruct(rows, targets, weights=None, *, rank):
    return compiled(rank)(*difference(rows, targets, weights))


def sample(count, seed=1):
    """Inputs, rows of ReLU features on a grid, one-hot targets."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, D))
    rows = np.round(np.maximum(inputs @ KERNEL, 0) / GRID) * GRID
    return inputs, rows, np.eye(K)[random.integers(0, K, count)]


def state(rows, targets, weights=None):
    weights = np.ones(len(rows)) if weights is None else weights
    weighted = weights[:, None] * rows
    return jnp.asarray(weighted.T @ rows), jnp.asarray(weighted.T @ targets)


def difference(rows, targets, weights=None):
    """Arguments of the attacker: the first rows go, the last hundred stay."""
    weights = np.ones(len(rows)) if weights is None else weights
    before = state(rows, targets, weights)
    after = state(rows[-100:], targets[-100:], weights[-100:])
    return before[0], after[0], before[1], after[1]


def test_a_single_deleted_row_and_its_target_are_read_off():
    _, rows, targets = sample(101)
    removed = reconstruct(rows, targets, rank=1)
    np.testing.assert_allclose(removed.rows[0], rows[0], atol=1e-12)
    np.testing.assert_allclose(removed.targets[0], targets[0], atol=1e-12)
    assert int(removed.rank) == 1
    np.testing.assert_allclose(removed.explained, 1, rtol=1e-12)


def test_a_weighted_row_appears_times_the_root_of_its_weight():
    _, rows, targets = sample(101)
    weights = np.ones(101)
    weights[0] = 4.0
    removed = reconstruct(rows, targets, weights, rank=1)
    np.testing.assert_allclose(removed.rows[0], 2 * rows[0], atol=1e-12)
    np.testing.assert_allclose(removed.targets[0], 2 * targets[0], atol=1e-12)


def test_of_several_rows_the_difference_gives_rows_and_targets_up_to_one_rotation():
    _, rows, targets = sample(104)
    removed = reconstruct(rows, targets, rank=ROWS)
    found, true = np.asarray(removed.rows), rows[:ROWS]
    turn = found @ np.linalg.pinv(true)
    np.testing.assert_allclose(turn @ turn.T, np.eye(ROWS), atol=1e-10)
    assert np.abs(turn - np.eye(ROWS)).max() > 0.3
    np.testing.assert_allclose(turn @ true, found, atol=1e-10)
    np.testing.assert_allclose(turn @ targets[:ROWS], removed.targets, atol=1e-10)
    told = recovery(removed, true, targets[:ROWS])
    assert told.angles.max() < 1e-10
    assert told.cosine.min() < 0.9
    assert told.row_error.max() > 0.3
    assert np.all(found.sum(axis=1) >= 0)


def test_nonnegative_rows_pin_the_rotation(key):
    _, rows, targets = sample(104)
    removed = reconstruct(rows, targets, rank=ROWS)
    told = recovery(separate(key, removed), rows[:ROWS], targets[:ROWS])
    assert told.cosine.min() > 1 - 1e-9
    assert told.row_error.max() < 1e-5
    assert told.target_error.max() < 1e-5


def test_dense_rows_leave_the_rotation_open(key):
    # Rows without zeros: small rotations keep them nonnegative, so none is better.
    random = np.random.default_rng(4)
    rows, targets = 1 + random.random((104, F)), np.eye(K)[np.arange(104) % K]
    removed = reconstruct(rows, targets, rank=ROWS)
    separated = separate(key, removed)
    assert np.all(np.asarray(separated.rows) > -1e-9)
    told = recovery(separated, rows[:ROWS], targets[:ROWS])
    assert told.angles.max() < 1e-10
    assert told.row_error.max() > 0.1


def test_a_class_of_which_one_row_went_shows_it_as_a_column():
    _, rows, targets = sample(104)
    targets[:ROWS] = np.eye(K)[[0, 0, 3, 0]]
    _, _, before, after = difference(rows, targets)
    np.testing.assert_array_equal((before - after)[:, 3], rows[2])


def test_the_number_of_rows_that_went_is_seen():
    _, rows, targets = sample(104)
    for asked, seen in ((2, 2), (4, 4), (9, 4)):
        removed = reconstruct(rows, targets, rank=asked)
        assert int(removed.rank) == seen
        np.testing.assert_array_equal(removed.rows[seen:], 0)
        np.testing.assert_array_equal(removed.targets[seen:], 0)
    values = np.linalg.svd(rows[:4], compute_uv=False) ** 2
    share = np.linalg.norm(values[:2]) / np.linalg.norm(values)
    removed = reconstruct(rows, targets, rank=2)
    np.testing.assert_allclose(removed.explained, share, rtol=1e-10)


def test_two_equal_states_reveal_nothing():
    _, rows, targets = sample(100)
    removed = reconstruct(rows, targets, rank=2)
    assert not any(np.any(leaf) for leaf in removed)


@pytest.mark.parametrize("rank", [0, F + 1])
def test_impossible_ranks_are_refused(rank):
    _, rows, targets = sample(101)
    with pytest.raises(ValueError, match=f"rank of 1 to {F}, got {rank}"):
        reconstruct_removed(*difference(rows, targets), rank=rank)


def test_recovery_matches_guesses_in_any_order():
    _, rows, targets = sample(3)
    rows[:, 0] += 1
    order = [2, 0, 1]
    guess = rows.copy()
    guess[1] *= 1.5
    parts = guess[order], targets[order] + 0.1, np.int32(3), 1.0
    told = recovery(Removed(*map(jnp.asarray, parts)), rows, targets)
    np.testing.assert_allclose(told.cosine, 1, rtol=1e-12)
    np.testing.assert_allclose(told.row_error, [0, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(told.target_error, 0.1 * K**0.5, rtol=1e-12)
    assert told.angles.max() < 1e-7


def test_inputs_follow_from_rows_when_the_kernel_is_known():
    inputs, rows, _ = sample(20)
    exact = np.maximum(inputs @ KERNEL, 0)
    found = invert(jnp.asarray(KERNEL), jnp.asarray(exact))
    assert np.all(np.asarray(found.rank) == D)
    np.testing.assert_allclose(found.inputs, inputs, atol=1e-10)
    assert np.asarray(found.residual).max() < 1e-12
    # On the grid: the rounding of each unit times 1 / the least singular value.
    coarse = invert(jnp.asarray(KERNEL), jnp.asarray(rows))
    for row, truth, guess in zip(rows, inputs, np.asarray(coarse.inputs), strict=True):
        active = KERNEL[:, row > 0]
        bound = GRID / 2 * active.shape[1] ** 0.5
        bound /= np.linalg.svd(active, compute_uv=False)[-1]
        assert 0 < np.linalg.norm(guess - truth) <= bound


def test_too_few_active_units_give_the_shortest_input():
    inputs, _, _ = sample(6)
    kernel = KERNEL[:, :D]
    rows = np.maximum(inputs @ kernel, 0)
    found = invert(jnp.asarray(kernel), jnp.asarray(rows))
    for row, truth, guess, rank in zip(
        rows, inputs, np.asarray(found.inputs), np.asarray(found.rank), strict=True
    ):
        active = kernel[:, row > 0]
        assert rank == active.shape[1] < D
        span = active @ np.linalg.pinv(active)
        np.testing.assert_allclose(guess, span @ truth, atol=1e-10)


def test_from_the_difference_of_two_states_to_the_input():
    inputs, rows, targets = sample(101)
    removed = reconstruct(rows, targets, rank=1)
    cleaned = jnp.where(removed.rows > GRID / 2, removed.rows, 0)
    found = invert(jnp.asarray(KERNEL), cleaned).inputs[0]
    error = np.linalg.norm(found - inputs[0]) / np.linalg.norm(inputs[0])
    assert error < 1e-4


@pytest.fixture(scope="module")
def groups():
    """Rows that stay, rows that are learned and deleted, rows never seen."""
    _, rows, targets = sample(600, seed=9)
    parts = np.split(np.arange(600), [40, 120])
    return [Batch(rows[i], targets[i], np.ones(len(i))) for i in parts]


def scores(held, candidates, count):
    gram, moment = held
    return judge(gram, moment, float(count), L2, candidates)


def test_scores_are_those_of_the_dense_hat_matrix(groups):
    kept, other, _ = groups
    gram, moment = state(kept.inputs, kept.targets)
    for candidates in (kept, other):
        found = scores((gram, moment), candidates, 40)
        inverse = np.linalg.inv(np.asarray(gram) + L2 * np.eye(F))
        hat = candidates.inputs @ inverse @ candidates.inputs.T
        missed = candidates.targets - candidates.inputs @ inverse @ np.asarray(moment)
        np.testing.assert_allclose(found.leverage, np.diag(hat), rtol=1e-9)
        np.testing.assert_allclose(
            found.residual, np.linalg.norm(missed, axis=1), rtol=1e-9
        )


def test_members_have_the_average_that_the_state_tells_and_stay_below_one(groups):
    kept, other, _ = groups
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 40)
    held = state(kept.inputs, kept.targets, weights)
    inside = np.asarray(scores(held, kept, weights.sum()).leverage)
    found = scores(held, other, weights.sum())
    average = np.sum(weights * inside) / weights.sum()
    np.testing.assert_allclose(found.member_leverage, average, rtol=1e-10)
    assert np.all(weights * inside < 1)
    assert np.mean(np.asarray(found.leverage)) > 1.3 * average
    assert np.any(np.asarray(found.leverage) > 1)


def test_learning_a_row_shrinks_its_leverage_and_residual_by_one_factor(groups):
    kept, other, _ = groups
    row = Batch(*(part[:1] for part in other))
    both = [np.concatenate(pair) for pair in zip(kept, row, strict=True)]
    without = scores(state(kept.inputs, kept.targets), row, 40)
    within = scores(state(both[0], both[1]), row, 41)
    u = np.asarray(without.leverage)
    np.testing.assert_allclose(within.leverage, u / (1 + u), rtol=1e-9)
    np.testing.assert_allclose(within.residual, without.residual / (1 + u), rtol=1e-9)


def test_a_deleted_row_scores_like_one_never_seen(groups, key):
    kept, deleted, unseen = groups
    never = state(kept.inputs, kept.targets)
    added = state(deleted.inputs, deleted.targets)
    full = [a + b for a, b in zip(never, added, strict=True)]
    after = [a - b for a, b in zip(full, added, strict=True)]
    for one, other in zip(after, never, strict=True):
        np.testing.assert_array_equal(one, other)

    def attacks(held, count):
        return state_attacks(
            key, scores(held, deleted, count), scores(held, unseen, count)
        )

    before, gone = attacks(full, 120), attacks(after, 40)
    for attack in before:
        assert attack.auc > 0.5 + 4 * attack.auc_error
        assert attack.tpr_at_1_percent >= 0
    for attack in gone:
        assert abs(attack.auc - 0.5) < 4 * attack.auc_error
    assert gone == attacks(never, 40)
    for field, attack in zip(("leverage", "residual"), before, strict=True):
        pair = [getattr(scores(full, g, 120), field) for g in (deleted, unseen)]
        below = np.asarray(pair[0])[:, None] < np.asarray(pair[1])
        np.testing.assert_allclose(attack.auc, below.mean(), rtol=1e-12)


def test_the_more_rows_for_each_feature_the_less_the_state_tells(key):
    areas = []
    for count in (30, 300, 3000):
        _, rows, targets = sample(count + 300, seed=11)
        groups = [
            Batch(rows[part], targets[part], np.ones(len(rows[part])))
            for part in (slice(min(count, 300)), slice(count, None))
        ]
        held = state(rows[:count], targets[:count])
        inside, outside = (scores(held, group, count) for group in groups)
        areas.append(state_attacks(key, inside, outside).leverage)
    assert areas[0].auc > 0.95
    assert areas[0].auc > areas[1].auc + 4 * areas[1].auc_error
    assert areas[1].auc > 0.5 + 2 * areas[1].auc_error
    assert abs(areas[2].auc - 0.5) < 3 * areas[2].auc_error


def test_candidates_of_weight_zero_do_not_reach_the_others(groups):
    kept, other, _ = groups
    held = state(kept.inputs, kept.targets)
    some = Batch(*(part[:4].copy() for part in other))
    expected = scores(held, some, 40)
    some.inputs[1] = np.nan
    some.weights[1] = 0
    found = scores(held, some, 40)
    assert np.all(np.isfinite(found.leverage))
    rest = [0, 2, 3]
    np.testing.assert_allclose(
        np.asarray(found.leverage)[rest], np.asarray(expected.leverage)[rest]
    )


def test_all_of_it_runs_under_vmap(key):
    _, rows, targets = sample(105)
    gone = [difference(rows[s:][:104], targets[s:][:104]) for s in (0, 1)]
    stacked = [jnp.stack(pair) for pair in zip(*gone, strict=True)]
    kernel = jnp.asarray(KERNEL)
    candidates = Batch(*map(jnp.asarray, (rows[:6], targets[:6], np.ones(6))))

    def everything(before, after, cross, cross_after):
        removed = compiled(ROWS)(before, after, cross, cross_after)
        separated = separate(key, removed)
        inside = judge(before, cross, 104.0, L2, candidates)
        return removed, invert(kernel, separated.rows), inside

    mapped = jax.vmap(everything)(*stacked)
    for i, states in enumerate(gone):
        single = jax.tree.leaves(everything(*states))
        for many, one in zip(jax.tree.leaves(mapped), single, strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-6, atol=1e-7)
