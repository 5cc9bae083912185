"""Datamodels: a model's outputs as a linear function of its training weights.

An ensemble of m models trained on subsets gives masks (m, n) and outputs (m, q). Ridge
regression of the outputs on the masks has, with both centred over members,

    coef = Yᵀ (M Mᵀ + λ I)⁻¹ M = Yᵀ M (Mᵀ M + λ I)⁻¹,    λ = l2 · trace(M Mᵀ) / m,

so one factorisation of the smaller side serves all outputs, and λ in these units does
not depend on the number of examples. M is centred, hence the intercept not penalised.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Float

from unlearn_jax.attribution.attribution import Attribution, Evidence, need
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.members import (
    MemberShares,
    linear_in_members,
    masks_of,
    over_members,
)
from unlearn_jax.data.accumulate import present
from unlearn_jax.loop import tracing
from unlearn_jax.solvers.lasso import lasso
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar
from unlearn_kernels.precision import exact_product

GRID = tuple(10.0 ** (e / 2) for e in range(-6, 9))
"""Values of l2 that are tried when none is given: 0.001 to 10 000."""


class Datamodel(NamedTuple):
    """Value: outputs ≈ coef · weights + bias.

    Attributes:
        coef: ∂ output / ∂ training weight.
        bias: Output of a model trained on nothing, by the line.
    """

    coef: Float[Array, "q n"]
    bias: Float[Array, " q"]


def fit_datamodel(
    masks: Any,
    outputs: Any,
    *,
    l2: Any = None,
    l1: Any = None,
    grid: Any = GRID,
    tol: float = 1e-4,
    max_steps: int = 2000,
) -> Datamodel:
    """Regress outputs on training weights.

    Args:
        masks: (m, n) training weights of the members; bits and integers are fine.
        outputs: (m, q) one column per output.
        l2: Ridge, over the mean squared length of a centred mask (no unit); None takes
            that of ``grid`` with the least :func:`leave_one_out_errors` over all
            outputs.
        l1: Lasso instead, in the units of ``solvers.lasso``: a number or (q,).
        grid: Candidates for l2.
        tol: Relative duality gap of the lasso.
        max_steps: Of the lasso. A fit that they cut short is taken as it is; the gap
            that is left is told by ``solvers.lasso`` itself.

    Raises:
        ValueError: shapes that do not fit, both penalties, or l2 that is not positive.

    Cost: ridge: 2 m n s + s³/3 with s the smaller of m and n, and 2 m n q; the choice
        of l2 an eigendecomposition, some 9 s³, and 2 m s q for each candidate.
    Source: Ilyas et al. 2022, arXiv 2202.00622, eq. 2, by lasso. Differs: ridge by
        default, whose error with members left out is known in closed form.
    """
    if l1 is not None:
        if l2 is not None:
            raise ValueError(f"got l1 and l2={l2}; give one of them")
        masks, outputs = _arrays(masks, outputs)
        found = lasso(masks, outputs, l1=l1, tol=tol, max_steps=max_steps)
        return Datamodel(found.coef, found.intercept)
    masks, outputs = _arrays(masks, outputs)
    if l2 is None:
        l2 = choose_l2(masks, outputs, grid=grid)
    middle = jnp.mean(outputs, axis=0)
    coef = exact_product((outputs - middle[None]).T, member_shares(masks, l2=l2))
    return Datamodel(coef, middle - exact_product(coef, jnp.mean(masks, axis=0)))


def predict_outputs(datamodel: Datamodel, weights: Any) -> Float[Array, "*s q"]:
    """Outputs of a model trained with these weights, (n,) or one row (s, n) each."""
    coef, bias = datamodel
    weights = jnp.asarray(weights).astype(coef.dtype)
    if weights.ndim == 1:
        return exact_product(coef, weights) + bias
    return exact_product(weights, coef.T) + bias[None]


def member_shares(masks: Any, *, l2: Any) -> Float[Array, "m n"]:
    """(M Mᵀ + λ I)⁻¹ M: ``outputs.T @ shares`` are the coefficients.

    Cost: as :func:`fit_datamodel` without outputs.
    """
    centred, damping = _centred(masks, l2)
    m, n = centred.shape
    if m <= n:
        return cho_solve(
            cho_factor(_damped(exact_product(centred, centred.T), damping)), centred
        )
    return cho_solve(
        cho_factor(_damped(exact_product(centred.T, centred), damping)), centred.T
    ).T


def member_factors(masks: Any, weights_change: Any, *, l2: Any) -> Float[Array, " m"]:
    """α = (M Mᵀ + λ I)⁻¹ M Δw: the change is predicted as Σₘ αₘ outputs[m].

    α sums to zero. It applies to outputs of any shape, wherever they are kept: with a
    memory-mapped array take ``numpy.tensordot(α, outputs[:, a:b], 1)`` part by part.

    Args:
        masks: (m, n).
        weights_change: Δw (n,).
        l2: As in :func:`fit_datamodel`.

    Cost: m² n + m³/3 or n² m + n³/3 operations, whichever is less.
    """
    centred, damping = _centred(masks, l2)
    m, n = centred.shape
    moved = jnp.asarray(weights_change).astype(centred.dtype)
    if m <= n:
        factor = cho_factor(_damped(exact_product(centred, centred.T), damping))
        return cho_solve(factor, exact_product(centred, moved))
    factor = cho_factor(_damped(exact_product(centred.T, centred), damping))
    return exact_product(centred, cho_solve(factor, moved))


def predicted_change(
    masks: Any, outputs: Any, weights_change: Any, *, l2: Any = None, grid: Any = GRID
) -> Float[Array, "q k"]:
    """What a change of the training weights does to the outputs, without coefficients.

    Args:
        masks: (m, n).
        outputs: (m, q, k).
        weights_change: Δw (n,).
        l2: As in :func:`fit_datamodel`, one for all outputs.
        grid: Candidates for l2.

    Cost: one solve of size m, and 2 m q k.
    """
    flat, rest = jnp.reshape(outputs, (len(outputs), -1)), np.shape(outputs)[1:]
    masks, flat = _arrays(masks, flat)
    if l2 is None:
        l2 = choose_l2(masks, flat, grid=grid)
    factors = member_factors(masks, weights_change, l2=l2)
    centred = flat - jnp.mean(flat, axis=0, keepdims=True)
    return exact_product(factors, centred).reshape(rest)


def leave_one_out_errors(
    masks: Any, outputs: Any, *, grid: Any = GRID, weights: Any = None
) -> Float[Array, " g"]:
    """Mean squared error on each member by the datamodel fitted to the others, exactly.

    Residual over one minus leverage, from one eigendecomposition for all l2. λ is held
    as the members together have it.

    Args:
        masks: (m, n).
        outputs: (m, q).
        grid: (g,) values of l2.
        weights: Of the outputs (q,), mean over them; None for ones.

    Cost: some 9 s³ with s the smaller of m and n; 2 m s (q + 1) for each value.
    Source: Allen 1974 (PRESS). As published.
    """
    masks, outputs = _arrays(masks, outputs)
    centred, unit = _centred(masks, 1.0)
    m, n = centred.shape
    y = outputs - jnp.mean(outputs, axis=0, keepdims=True)
    shares = jnp.ones(y.shape[1], y.dtype) if weights is None else jnp.asarray(weights)
    shares = shares / jnp.maximum(jnp.sum(shares), jnp.finfo(y.dtype).tiny)
    values, vectors = jnp.linalg.eigh(
        exact_product(centred, centred.T)
        if m <= n
        else exact_product(centred.T, centred)
    )
    values = jnp.maximum(values, 0)
    # Without the direction common to all members, which the intercept takes up.
    if m <= n:
        basis = vectors - jnp.mean(vectors, axis=0, keepdims=True)
    else:
        basis = exact_product(centred, vectors)
    inside = exact_product(basis.T, y)

    def error(l2: Array) -> Array:
        inverse = 1 / (values + l2 * unit)
        residual = exact_product(basis, inverse[:, None] * inside)
        free = exact_product(jnp.square(basis), inverse)
        if m > n:
            residual, free = y - residual, 1 - 1 / m - free
        return exact_product(
            jnp.mean(jnp.square(residual / free[:, None]), axis=0), shares
        )

    return jax.lax.map(error, jnp.asarray(grid, y.dtype))


def choose_l2(
    masks: Any, outputs: Any, *, grid: Any = GRID, weights: Any = None
) -> Scalar:
    """The l2 of the grid that predicts members left out best."""
    errors = leave_one_out_errors(masks, outputs, grid=grid, weights=weights)
    return jnp.asarray(grid, errors.dtype)[jnp.argmin(errors)]


def datamodel_blocks(
    masks: Any,
    outputs: Any,
    *,
    l2: Any = None,
    grid: Any = GRID,
    block_size: int = 1024,
) -> Iterator[tuple[slice, Datamodel]]:
    """Datamodels of outputs that do not fit memory, block by block, on the host.

    Args:
        masks: (m, n), may be memory-mapped.
        outputs: (m, q), may be memory-mapped; ``block_size`` columns are read at once.
        l2: As in :func:`fit_datamodel`; None reads the outputs twice.
        grid: Candidates for l2.
        block_size: Outputs at once.

    Yields:
        The columns, and their Datamodel.

    Cost: as :func:`fit_datamodel`, one factorisation in all; when l2 is chosen, one
        eigendecomposition for each block. Memory m n and block_size · (m + n).
    """
    count = outputs.shape[1]
    starts = range(0, count, block_size)
    masks = _floating(masks, jnp.result_type(outputs.dtype, jnp.float32))
    if l2 is None:
        total = 0.0
        for start in starts:
            block = jnp.asarray(outputs[:, start : start + block_size])
            total += block.shape[1] * leave_one_out_errors(masks, block, grid=grid)
        l2 = float(grid[int(np.argmin(total))])
    shares, average = member_shares(masks, l2=l2), jnp.mean(masks, axis=0)
    for start in starts:
        columns = slice(start, min(start + block_size, count))
        block = jnp.asarray(outputs[:, columns]).astype(masks.dtype)
        middle = jnp.mean(block, axis=0)
        coef = exact_product((block - middle[None]).T, shares)
        yield columns, Datamodel(coef, middle - exact_product(coef, average))


@entrance()
def datamodel(
    learner: Learner,
    *,
    l2: float | None = None,
    choice_examples: int = 256,
    batch_size: int = 256,
) -> Attribution:
    """Effects as the coefficients of a ridge regression over the ensemble.

    Args:
        learner: Its model is applied.
        l2: Over the mean squared length of a centred mask (no unit). None: chosen when
            prepared, by members left out, from all raw outputs on some training
            examples; so an effect never depends on which other queries are asked.
        choice_examples: How many, spread over the training set.
        batch_size: Queries whose activations are held at once.

    Reads ``evidence.ensemble`` alone.

    Raises:
        ValueError: an impossible setting; when prepared, no ensemble.

    Cost: prepare: as :func:`member_shares`, m n numbers are kept. Effects: a forward
        pass of each member over the queries and 2 m n q.
    Source: Ilyas et al. 2022, arXiv 2202.00622. Differs: ridge, see
        :func:`fit_datamodel`; any output function at no further training.
    """
    _check_l2(l2)
    if choice_examples < 1:
        raise ValueError(f"choice_examples must be at least 1, got {choice_examples}")

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> MemberShares:
        del key
        need(evidence, "ensemble")
        assert evidence.ensemble is not None
        masks, models = masks_of(evidence, train), evidence.ensemble.models
        chosen: Any = l2
        if l2 is None:
            n = len(train.weights)
            at = np.linspace(0, n - 1, min(n, choice_examples)).astype(int)
            some = present(jax.tree.map(lambda leaf: jnp.asarray(leaf)[at], train))
            outputs = over_members(
                learner.model, models, some.inputs, batch_size=batch_size
            )
            weights = jnp.broadcast_to(
                (some.weights > 0)[:, None], outputs.shape[1:]
            ).ravel()
            flat = outputs.reshape(len(outputs), -1)
            chosen = choose_l2(masks, flat, weights=weights)
        return MemberShares(member_shares(masks, l2=chosen), models)

    return linear_in_members(learner, prepare, batch_size=batch_size)


def _check_l2(l2: Any) -> None:
    if l2 is not None and not tracing(l2) and not np.all(np.asarray(l2) > 0):
        raise ValueError(
            f"l2 is {l2}, expected a positive number: masks of one size are dependent "
            f"without a penalty"
        )


def _floating(masks: Any, dtype: Any) -> Array:
    return jnp.asarray(masks).astype(jnp.result_type(dtype, jnp.float32))


def _arrays(masks: Any, outputs: Any) -> tuple[Array, Array]:
    outputs = jnp.asarray(outputs)
    masks = _floating(masks, outputs.dtype)
    if masks.ndim != 2 or outputs.ndim != 2 or len(masks) != len(outputs):
        raise ValueError(
            f"got masks {masks.shape} and outputs {outputs.shape}, expected (m, n) and "
            f"(m, q): one row per member"
        )
    return masks, outputs.astype(masks.dtype)


def _centred(masks: Any, l2: Any) -> tuple[Array, Array]:
    """The masks less their mean over members, and λ."""
    _check_l2(l2)
    masks = _floating(masks, jnp.asarray(masks).dtype)
    centred = masks - jnp.mean(masks, axis=0, keepdims=True)
    unit = jnp.sum(jnp.square(centred)) / len(masks)
    # Masks that are all alike have no effect, whatever the penalty.
    return centred, jnp.asarray(l2, masks.dtype) * jnp.where(unit > 0, unit, 1)


def _damped(gram: Array, damping: Array) -> Array:
    return gram + damping * jnp.eye(len(gram), dtype=gram.dtype)
