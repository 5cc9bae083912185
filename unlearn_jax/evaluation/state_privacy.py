"""What the statistics of a ridge regression reveal: deleted rows, inputs, membership.

The state is G = Σ w x xᵀ and Q = Σ w x yᵀ over rows x = relu(h B). Three attackers:

* One who saw the state before and after a deletion. G − G' and Q − Q' give a single
  deleted row and its target exactly; of r rows the span, and the rows and targets up to
  one rotation of r dimensions. That rotation mostly goes too: rows of a ReLU have
  zeros, and the rotation that makes all of them nonnegative is rarely another one. A
  class of which one row went shows it openly, as a column of Q − Q'.
* One who also knows B: an input follows from the active units of its row.
* One who holds the present state and a guess. A row that is within has a lower leverage
  and a smaller residual than one that is not, the more so the fewer rows there are for
  each feature. After an exact deletion the state is the one of a history without the
  row, so that row can be told no better than any other.

Exact deletion protects against the third. Against the first only noise does
(:mod:`unlearn_jax.methods.state_noise`), or not showing both states.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float, Int

from unlearn_jax.data.accumulate import present
from unlearn_jax.evaluation.membership import Attack, threshold_attack
from unlearn_jax.types import Array, Batch, PerExample, PRNGKey, Scalar
from unlearn_kernels.precision import exactly


class Removed(NamedTuple):
    """Value: what the difference of two states says about the rows that went.

    Rows and targets of weight w appear times √w, which a target of known size undoes.

    Attributes:
        rows: Of one row the row itself; of more, an orthogonal matrix times the rows.
        targets: The same matrix times the targets; zero beyond ``rank``.
        rank: Independent rows that went; at most the ``rank`` asked for.
        explained: Share of ‖G − G'‖_F that these rows explain, in [0, 1].
    """

    rows: Float[Array, "r f"]
    targets: Float[Array, "r k"]
    rank: Int[Array, ""]
    explained: Scalar


class Recovery(NamedTuple):
    """Value: how near an attacker came, for each true row.

    Attributes:
        cosine: With the guess matched to it, at most 1.
        row_error: ‖guess − row‖ / ‖row‖.
        target_error: ‖guess − target‖ / ‖target‖.
        angles: Principal angles between the spans of guesses and rows (radians),
            largest first.
    """

    cosine: Float[np.ndarray, " r"]
    row_error: Float[np.ndarray, " r"]
    target_error: Float[np.ndarray, " r"]
    angles: Float[np.ndarray, " s"]


class Inverted(NamedTuple):
    """Value: inputs found behind rows of random features.

    Attributes:
        inputs: Least squares on the active units; the shortest where they are too few.
        rank: Dimensions of the input that the active units determine.
        residual: ‖active part of relu(h B) − row‖ / ‖row‖.
    """

    inputs: Float[Array, "n d"]
    rank: Int[Array, " n"]
    residual: PerExample


class MembershipScores(NamedTuple):
    """Value: how a state sees candidate rows; members score low on both.

    Attributes:
        leverage: xᵀ (G + l2 I)⁻¹ x. At most 1 / w for a row within; above that it is
            proof of absence.
        residual: ‖y − xᵀ W‖.
        member_leverage: What the rows within have on average, tr(G (G + l2 I)⁻¹) /
            count: the state itself tells where to put the threshold.
    """

    leverage: PerExample
    residual: PerExample
    member_leverage: Scalar


class StateAttacks(NamedTuple):
    """Value: the two attacks by their areas under the curve and error rates."""

    leverage: Attack
    residual: Attack


@exactly
def reconstruct_removed(
    before_gram: Float[Array, "f f"],
    after_gram: Float[Array, "f f"],
    before_moment: Float[Array, "f k"],
    after_moment: Float[Array, "f k"],
    *,
    rank: int,
) -> Removed:
    """Rows and targets that left between two states, up to one rotation.

    D = G − G' = Xᵀ X and E = Q − Q' = Xᵀ Y. With the leading eigenpairs D = V Λ Vᵀ the
    guess Λ^½ Vᵀ is O X for an orthogonal O, and Λ^-½ Vᵀ E is O Y for the same O. For
    one row O is a sign, and a row of ReLU features has none below 0.

    Args:
        before_gram: G.
        after_gram: G'.
        before_moment: Q.
        after_moment: Q'.
        rank: Rows to look for (count), at most f.

    Returns:
        Removed, each row with the sign that makes its sum positive, largest first.

    Raises:
        ValueError: ``rank`` is not between 1 and f.

    Cost: one eigendecomposition, about 10 f³.
    """
    f = before_gram.shape[0]
    if not 1 <= rank <= f:
        raise ValueError(f"expected a rank of 1 to {f}, got {rank}")
    gone, cross = before_gram - after_gram, before_moment - after_moment
    values, vectors = jnp.linalg.eigh((gone + gone.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    rounding = f * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(before_gram))
    seen = values[:rank] > rounding
    kept = jnp.where(seen, values[:rank], 0)
    signs = jnp.where(jnp.sum(vectors[:, :rank], axis=0) < 0, -1, 1)
    directions = (vectors[:, :rank] * signs.astype(values.dtype)[None]).T
    lengths = jnp.sqrt(kept)[:, None]
    targets = jnp.where(seen[:, None], directions @ cross / lengths, 0)
    total = jnp.sum(jnp.square(values))
    explained = jnp.where(total > 0, jnp.sum(jnp.square(kept)) / total, 0) ** 0.5
    count = jnp.sum(seen, dtype=jnp.int32)
    return Removed(lengths * directions, targets, count, explained)


@exactly
def separate_rows(
    key: PRNGKey, removed: Removed, *, starts: int = 16, steps: int = 500
) -> Removed:
    """Undo the rotation, knowing only that rows are nonnegative.

    Alternates between P = max(O X̂, 0) and the orthogonal O nearest to it (Procrustes),
    from random rotations, and keeps the start with the least negative part. The zeros
    of a ReLU pin the rotation: where each row is 0 at many places at which others are
    not, what comes back are the rows themselves, in some order.

    Args:
        key: Draws the starts.
        removed: From ``reconstruct_removed``, with ``rank`` rows seen.
        starts: Rotations tried (count).
        steps: Alternations for each (count).

    Returns:
        The same with rows and targets rotated.

    Cost: starts · steps · (2 r² f + 20 r³).
    """
    rows = removed.rows
    r = rows.shape[0]

    def nearest(matrix: Array) -> Array:
        left, _, right = jnp.linalg.svd(matrix)
        return left @ right

    def search(start: Array) -> tuple[Array, Array]:
        def step(_: Array, turn: Array) -> Array:
            return nearest(jnp.maximum(turn @ rows, 0) @ rows.T)

        turn = jax.lax.fori_loop(0, steps, step, nearest(start))
        return turn, jnp.sum(jnp.square(jnp.minimum(turn @ rows, 0)))

    draws = jax.random.normal(key, (starts, r, r), rows.dtype)
    turns, negative = jax.vmap(search)(draws)
    best = turns[jnp.argmin(negative)]
    return removed._replace(rows=best @ rows, targets=best @ removed.targets)


@exactly
def recovery(
    guess: Removed,
    rows: Float[Array | np.ndarray, "r f"],
    targets: Float[Array | np.ndarray, "r k"],
) -> Recovery:
    """Match guesses to the true rows by cosine, and measure each pair.

    Args:
        guess: From ``reconstruct_removed`` or ``separate_rows``.
        rows: The rows that went, times √w.
        targets: Their targets, times √w.

    Cost: r² f, and an assignment of r to r.
    """
    found, true = np.asarray(guess.rows), np.asarray(rows)
    lengths = np.linalg.norm(true, axis=1)
    across = np.linalg.norm(found, axis=1)[:, None] * lengths
    cosines = found @ true.T / np.where(across > 0, across, 1)
    chosen, matched = scipy.optimize.linear_sum_assignment(-cosines)
    order = chosen[np.argsort(matched)]
    y, found_y = np.asarray(targets), np.asarray(guess.targets)[order]
    return Recovery(
        cosines[order, np.arange(len(true))],
        np.linalg.norm(found[order] - true, axis=1) / lengths,
        np.linalg.norm(found_y - y, axis=1) / np.linalg.norm(y, axis=1),
        scipy.linalg.subspace_angles(found.T, true.T),
    )


@exactly
def invert_random_features(
    kernel: Float[Array, "d f"], rows: Float[Array, "n f"]
) -> Inverted:
    """Inputs h behind rows relu(h B), for an attacker who knows B.

    A unit above 0 is one linear equation in h; half of the units are, so that f of 2 d
    and somewhat more determine h. Rows rounded to a grid give h up to that rounding
    times the condition of the active part of B.

    Args:
        kernel: B.
        rows: Rows of features, such as those that ``reconstruct_removed`` finds; at 0
            or below, a unit counts as inactive.

    Cost: one singular value decomposition of d × f for each row.
    """

    def invert(row: Array) -> tuple[Array, Array, Array]:
        active = row > 0
        system = jnp.where(active[:, None], kernel.T, 0)
        right = jnp.where(active, row, 0)
        found, _, rank, _ = jnp.linalg.lstsq(system, right)
        length = jnp.linalg.norm(right)
        missed = jnp.linalg.norm(system @ found - right)
        return found, rank, jnp.where(length > 0, missed / length, 0)

    return Inverted(*jax.vmap(invert)(rows))


@exactly
def membership_from_state(
    gram: Float[Array, "f f"],
    moment: Float[Array, "f k"],
    count: float | Scalar,
    l2: float | Scalar,
    candidates: Batch,
) -> MembershipScores:
    """Leverage and residual of candidate rows under a state.

    A row that was within with weight 1 has the leverage u / (1 + u), where u is the one
    it would have if it were not, and the residual e / (1 + u).

    Args:
        gram: G.
        moment: Q.
        count: Total weight within (count).
        l2: Coefficient of the ridge, positive.
        candidates: Features (n, f), targets (n, k), weights; rows of weight 0 get the
            scores of some other row.

    Cost: one Cholesky factor, f³ / 3, and f² for each candidate.
    Source: leave-one-out by the hat matrix, e.g. Cook & Weisberg 1982, §2.2. Differs:
        ridge; used as an attack.
    """
    x, y, _ = map(jnp.asarray, present(candidates))
    f = gram.shape[0]
    factor = jax.scipy.linalg.cho_factor(gram + l2 * jnp.eye(f, dtype=gram.dtype))
    weight = jax.scipy.linalg.cho_solve(factor, moment)
    leverage = jnp.sum(x.T * jax.scipy.linalg.cho_solve(factor, x.T), axis=0)
    residual = jnp.linalg.norm(y - x @ weight, axis=1)
    inside = jnp.trace(jax.scipy.linalg.cho_solve(factor, gram)) / count
    return MembershipScores(leverage, residual, inside)


@exactly
def state_attacks(
    key: PRNGKey, members: MembershipScores, non_members: MembershipScores
) -> StateAttacks:
    """Judge two groups by leverage and by residual; low looks like a member.

    Args:
        key: Evaluation seed.
        members: Scores of rows that are, or were, within.
        non_members: Scores of rows never seen, under the same state.

    Raises:
        ValueError: fewer than two candidates in a group.

    Cost: a few sorts.
    """
    pairs = zip(members[:2], non_members[:2], strict=True)
    attacks = (threshold_attack(key, *(-np.asarray(s) for s in pair)) for pair in pairs)
    return StateAttacks(*attacks)
