"""Which gradients TRAK's kernel is made of, and what its two forms share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.curvature.per_example import (
    Gradients,
    PerExample,
    output_slopes,
    per_example,
)
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, Variables
from unlearn_kernels.precision import EXACT, exact_product


def margin_rows(objective: Objective, outputs: Any, targets: Any) -> Any:
    """φ = ∇margin; the cross-entropy's gradient is −(1 − p) φ."""
    del objective
    slopes, odds = _margin_slopes(outputs, targets)
    return slopes[None], -jax.nn.sigmoid(-odds)[None]


def newton_rows(objective: Objective, outputs: Any, targets: Any) -> Any:
    """φ = √(p (1 − p)) ∇margin, the second derivative along the margin."""
    del objective
    slopes, odds = _margin_slopes(outputs, targets)
    root = jnp.sqrt(jax.nn.sigmoid(odds) * jax.nn.sigmoid(-odds))
    root = jnp.maximum(root, 1e-18)
    return (root[:, None] * slopes)[None], (-jax.nn.sigmoid(-odds) / root)[None]


def loss_rows(objective: Objective, outputs: Any, targets: Any) -> Any:
    """φ = ∇ℓ: the empirical Fisher matrix."""
    slopes = output_slopes(objective, outputs, targets)
    return slopes[None], jnp.ones((1, outputs.shape[0]), outputs.dtype)


def output_rows(objective: Objective, outputs: Any, targets: Any) -> Any:
    """√λ vᵀ ∂outputs/∂θ for each eigenpair of the loss's Hessian in the outputs."""
    if outputs.ndim != 2:
        raise ValueError(
            f"the kernel 'outputs' got outputs of shape {outputs.shape}, expected "
            f"(n, k); the kernel 'loss' takes any"
        )

    def loss(out: Any, target: Any) -> Array:
        return objective.loss(out[None], target[None])[0]

    values, vectors = jnp.linalg.eigh(jax.vmap(jax.hessian(loss))(outputs, targets))
    roots = jnp.sqrt(jnp.maximum(values, 0))
    slopes = output_slopes(objective, outputs, targets)
    along = jnp.einsum("nor,no->rn", vectors, slopes, precision=EXACT)
    # A convex loss has no slope where it has no curvature.
    floor = 10 * jnp.finfo(values.dtype).eps * jnp.max(values, axis=1, keepdims=True)
    kept = (values > floor).T
    shares = jnp.where(kept, along / jnp.where(kept, roots.T, 1), 0)
    return jnp.einsum("nor,nr->rno", vectors, roots, precision=EXACT), shares


KERNELS: Mapping[str, Callable[[Objective, Any, Any], Any]] = {
    "margin": margin_rows,
    "newton": newton_rows,
    "loss": loss_rows,
    "outputs": output_rows,
}
"""Name -> ``(objective, outputs, targets) -> (cotangents (r, n, k), shares (r, n))``.

The kernel is Σₙᵣ wₙ φₙᵣ φₙᵣᵀ, φₙᵣ the gradient that a cotangent gives; the gradient of
loss n is Σᵣ sharesₙᵣ φₙᵣ. One line adds a kernel.
"""

CURVATURES = ("newton", "outputs")
"""Kernels that stand for the second derivative of the risk, to which l2 belongs."""


def check_kernel(learner: Learner, kernel: str, damping: float, *sizes: int) -> None:
    """Refuse impossible settings when the attribution is built.

    Raises:
        ValueError: what is wrong, and what there is to choose from.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r} is unknown; choose from {(*KERNELS,)}")
    if kernel in ("margin", "newton") and learner.loss is not cross_entropy:
        raise ValueError(
            f"the kernel {kernel!r} is made for the loss cross_entropy; for another "
            f"loss take the kernel 'outputs' (regression) or 'loss'"
        )
    if not damping >= 0:
        raise ValueError(f"damping must not be negative, got {damping}")
    if min(sizes) < 1:
        raise ValueError(f"got batches of {sizes}, expected at least 1")


def pulled_rows(linear: PerExample, cotangents: Any) -> Gradients:
    """Gradients for cotangents (r, n, …), as of r n examples, n fastest."""
    if cotangents.shape[0] == 1:
        return linear.pull(cotangents[0])
    stacked = jax.vmap(linear.pull)(cotangents)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked)


def query_gradients(
    predict: Callable[[Any, Any], Any],
    params: Params,
    queries: Batch,
    output_fn: Callable[[Any, Any], Any],
) -> tuple[Any, Gradients]:
    """The tape, and the gradients of one number per query."""
    seen = present(queries)
    linear = per_example(predict, params, seen.inputs)
    slopes = jax.grad(lambda out: jnp.sum(output_fn(out, seen.targets)))
    return linear.tape, linear.pull(slopes(linear.outputs))


def outputs_along(
    learner: Learner,
    variables: Variables,
    queries: Batch,
    direction: Params,
    *,
    batch_size: int,
) -> Array:
    """Derivative of all raw outputs of the queries along a change of parameters."""

    def part(batch: Batch, at: Variables, direction: Params) -> Array:
        inputs = present(batch).inputs

        def outputs(params: Params) -> Array:
            return learner.model.apply(at._replace(params=params), inputs)

        cast = jax.tree.map(lambda x, p: x.astype(p.dtype), direction, at.params)
        return jax.jvp(outputs, (at.params,), (cast,))[1]

    return collect(part, queries, variables, direction, batch_size=batch_size)


def mean_over_models(function: Callable[..., Any], like: Any, *stacked: Any) -> Array:
    """Mean of ``function(*member)`` over the first axis, one member after another.

    Args:
        function: From the parts of one member to an array.
        like: Shape and dtype of that array.
        stacked: What has a leading axis of members.
    """

    def add(total: Array, member: Any) -> tuple[Array, None]:
        return total + function(*member).astype(total.dtype), None

    total, _ = jax.lax.scan(add, jnp.zeros(like.shape, like.dtype), stacked)
    return total / len(jax.tree.leaves(stacked)[0])


def outputs_like(learner: Learner, models: Variables, batch: Batch) -> Any:
    """Shape and dtype of one model's outputs of a batch."""

    def apply(models: Variables, inputs: Any) -> Any:
        first = jax.tree.map(lambda leaf: leaf[0], models)
        return learner.model.apply(first, inputs)

    return jax.eval_shape(apply, models, batch.inputs)


def rows_of_example(
    learner: Learner, rows_of: Callable[..., Any], models: Variables, train: Batch
) -> int:
    """How many rows a kernel has for each example."""
    objective = bind(learner.model, {}, learner.loss)

    def shares(outputs: Any, targets: Any) -> Array:
        return rows_of(objective, outputs, targets)[1]

    outputs = outputs_like(learner, models, train)
    return jax.eval_shape(shares, outputs, train.targets).shape[0]


def pairs_like(queries: Batch, train: Batch, dtype: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of effects."""
    return jax.ShapeDtypeStruct((len(queries.weights), len(train.weights)), dtype)


def effective_change(train: Batch, weights_change: Any, centred: bool) -> Array:
    """Δw of examples that are there; ``centred`` takes wₙ ΣΔw / W off."""
    weights = jnp.asarray(train.weights)
    moved = jnp.where(weights > 0, jnp.asarray(weights_change), 0)
    if not centred:
        return moved
    mass = jnp.sum(weights)
    return moved - weights * (jnp.sum(moved) / jnp.where(mass > 0, mass, 1))


def centre(scores: Array, train: Batch) -> Array:
    """Scores (q, n) less their weighted mean over training examples."""
    mass = jnp.sum(train.weights)
    mean = exact_product(scores, train.weights) / jnp.where(mass > 0, mass, 1)
    return scores - mean[:, None]


def _margin_slopes(outputs: Any, targets: Any) -> tuple[Array, Array]:
    odds, back = jax.vjp(lambda out: margin(out, targets), outputs)
    return back(jnp.ones_like(odds))[0], odds
