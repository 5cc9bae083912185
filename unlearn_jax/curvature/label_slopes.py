"""Slopes of the loss in the outputs, under the labels that a Fisher matrix is about."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from unlearn_jax import tree
from unlearn_jax.curvature.moments import wide
from unlearn_jax.curvature.per_example import (
    PerExample,
    block_size,
    output_slopes,
    per_example,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, mass
from unlearn_jax.loop import scan
from unlearn_jax.train.door import seen
from unlearn_jax.train.loss import (
    cross_entropy,
    is_known,
    sequence_nll,
    sequence_nll_sum,
    squared_error,
    squared_norm,
)
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, OutputLoss, Params, PRNGKey

Sums: TypeAlias = Callable[..., Any]
LABELS = ("true", "sampled", "exact")


class Plan(NamedTuple):
    """Description: what is summed over examples and over labels.

    Attributes:
        labels: "true", "sampled" or "exact".
        samples: Draws for each example under "sampled".
        once: ``(gradients, weights, *constants)`` -> sums that no label changes.
        each: The same, summed over labels.
    """

    labels: str
    samples: int
    once: Sums
    each: Sums


def mean_over_labels(
    key: PRNGKey | None,
    objective: Objective,
    params: Params,
    data: Batch,
    *constants: Any,
    plan: Plan,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Any, Any]:
    """Both sums of a plan over a data set, divided by the sum of its weights.

    Draws belong to an example's number in the data: blocks and meshes do not change
    them.

    Args:
        key: Draws labels.
        objective: Loss bound to frozen batch statistics.
        params: Where.
        data: Examples with weights.
        constants: Further arguments of the sums.
        plan: What is summed.
        batch_size: Examples whose inputs and slopes are held at once.
        mesh: Split the examples over its devices.
    """
    drawn = plan.labels == "sampled"

    def sums(batch: Batch, at: Params, key: Any, constants: Any) -> tuple[Any, Any]:
        keys = None
        if drawn:
            targets, numbers = batch.targets
            batch = batch._replace(targets=targets)
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        batch = seen(objective, at, batch)
        linear = per_example(objective.predict, at, batch.inputs)
        cotangents, scales = label_slopes(
            plan.labels, objective, linear.outputs, batch.targets, keys, plan.samples
        )
        return _both(linear, cotangents, scales, batch.weights, plan, constants)

    if batch_size is None:
        taped = tape(objective.predict, params, data.inputs)
        batch_size = block_size(taped, leading_axis(data))
    numbers = jnp.arange(leading_axis(data), dtype=jnp.int32)
    total = accumulate(
        sums,
        data._replace(targets=(data.targets, numbers)) if drawn else data,
        params,
        key if drawn else None,
        constants,
        batch_size=batch_size,
        mesh=mesh,
    )
    return tree.scale(1.0 / mass(data.weights), total)


def _both(
    linear: PerExample,
    cotangents: Array,
    scales: Array,
    weights: Any,
    plan: Plan,
    constants: Any,
) -> tuple[Any, Any]:
    def each(cotangent: Array, scale: Array) -> Any:
        return plan.each(linear.pull(cotangent), weights * scale, *constants)

    once = plan.once(linear.pull(cotangents[0]), weights, *constants)
    if len(cotangents) == 1:
        return once, each(cotangents[0], scales[0])

    def step(total: Any, pair: tuple[Array, Array]) -> tuple[Any, None]:
        return tree.add(total, each(*pair)), None

    like = jax.eval_shape(each, cotangents[0], scales[0])
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    return once, scan(step, zero, (cotangents, scales), weights)[0]


def label_slopes(
    labels: str,
    objective: Objective,
    outputs: Any,
    targets: Any,
    keys: Any,
    samples: int,
) -> tuple[Array, Array]:
    """Cotangents c of the outputs and numbers v so that Σₛ vₙₛ cₙₛ cₙₛᵀ is the middle.

    Args:
        labels: "true": those given; "sampled": drawn from the model; "exact": factors
            of the loss's Hessian in the outputs of an example, which for a likelihood
            is the expectation over the model's labels.
        objective: Its loss.
        outputs: (n, …).
        targets: Of n examples.
        keys: One for each example; read for "sampled" only.
        samples: Draws for each example.

    Returns:
        (cotangents (s, n, …), scales (s, n)).
    """
    n = outputs.shape[0]
    if labels == "true":
        slopes = output_slopes(objective, outputs, targets)
        return slopes[None], jnp.ones((1, n), outputs.dtype)
    if labels == "exact":
        return output_factors(objective, outputs, targets)

    def draw(number: Any) -> Array:
        own = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        if objective.loss is squared_error:
            noise = jax.vmap(
                lambda key: jax.random.normal(key, outputs.shape[1:], outputs.dtype)
            )
            return noise(own)
        drawn = jax.vmap(jax.random.categorical)(own, outputs)
        drawn = jnp.where(targets < 0, targets, drawn.astype(targets.dtype))
        return output_slopes(objective, outputs, drawn)

    cotangents = jax.lax.map(draw, jnp.arange(samples))
    shares = label_counts(objective, outputs, targets) / samples
    return cotangents, jnp.broadcast_to(shares, (samples, n))


def output_factors(
    objective: Objective, outputs: Any, targets: Any
) -> tuple[Array, Array]:
    """Cotangents c (s, n, …), numbers v (s, n): Σₛ vₙₛ cₙₛ cₙₛᵀ is the loss's Hessian.

    Of the known losses in closed form: for softmax p the labels' slopes p − e_y with
    v = p_y, for squared distances the unit vectors. None of these v is negative. Else
    eigenpairs, v cut off at zero where the loss is known to be convex. (On CPU many
    small eigenproblems beside other ones can lock up XLA's threads, seen on JAX 0.10.2
    in :mod:`unlearn_jax.attribution.source`: one more reason for closed forms.)
    """
    shape = outputs.shape[1:]
    known = CLOSED_FORMS.get(objective.loss)
    # There are no eigenvalues in half precision.
    flat = outputs.reshape(outputs.shape[0], -1)
    flat = flat.astype(wide(flat))
    if known is not None:
        cotangents, scales = known(flat.reshape(outputs.shape), targets)
    else:

        def loss(flat: Array, target: Any) -> Array:
            alone = jax.tree.map(lambda leaf: leaf[None], target)
            return objective.loss(flat.reshape(1, *shape), alone)[0]

        values, vectors = jnp.linalg.eigh(jax.vmap(jax.hessian(loss))(flat, targets))
        cotangents, scales = jnp.moveaxis(vectors, 2, 0), values.T
        if is_known(objective.loss):
            scales = jnp.maximum(scales, 0)
    return cotangents.reshape(-1, *outputs.shape).astype(outputs.dtype), scales


def _label_factors(outputs: Array, targets: Any) -> tuple[Array, Array]:
    """Of a softmax (n, k): diag(p) − p pᵀ = Σ_y p_y (p − e_y)(p − e_y)ᵀ."""
    p = jax.nn.softmax(outputs, axis=-1)
    return p[None] - _units(outputs)[:, None], p.T


def _token_factors(
    outputs: Array, targets: Any, *, loss: OutputLoss
) -> tuple[Array, Array]:
    """Of a mean or sum over the tokens that count of softmaxes (n, t, k)."""
    n, t, k = outputs.shape
    p = jax.nn.softmax(outputs, axis=-1)
    at = jnp.eye(t, dtype=p.dtype)[:, None, None, :, None]
    slopes = p[None, None] - _units(outputs)[None, :, None, None]
    share = token_shares(loss, targets, p.dtype)
    scales = jnp.moveaxis(share[..., None] * p, 0, 2)
    return (at * slopes).reshape(t * k, n, t, k), scales.reshape(t * k, n)


def _distance_factors(factor: float) -> Callable[[Array, Any], tuple[Array, Array]]:
    """Of factor / 2 times the squared distance of outputs (n, …)."""

    def factors(outputs: Array, targets: Any) -> tuple[Array, Array]:
        n, size = len(outputs), outputs[0].size
        units = jnp.eye(size, dtype=outputs.dtype)[:, None]
        return (
            jnp.broadcast_to(units, (size, n, size)),
            jnp.full((size, n), factor, outputs.dtype),
        )

    return factors


def _units(outputs: Array) -> Array:
    return jnp.eye(outputs.shape[-1], dtype=outputs.dtype)


CLOSED_FORMS: Mapping[OutputLoss, Callable[[Array, Any], tuple[Array, Array]]] = {
    cross_entropy: _label_factors,
    sequence_nll: functools.partial(_token_factors, loss=sequence_nll),
    sequence_nll_sum: functools.partial(_token_factors, loss=sequence_nll_sum),
    squared_error: _distance_factors(1.0),
    squared_norm: _distance_factors(2.0),
}


def check_labels(
    labels: str, key: Any, objective: Objective, params: Params, data: Any, what: str
) -> None:
    """Refuse labels that cannot be drawn.

    Raises:
        ValueError: an unknown kind; "sampled" without key, or for a loss whose labels
            have no known distribution.
    """
    if labels not in LABELS:
        raise ValueError(f"{what} got labels={labels!r}, expected one of {LABELS}")
    if labels != "sampled":
        return
    if key is None:
        raise ValueError(f"{what} got labels='sampled' and no key; give a random key")
    if objective.loss is squared_error:
        return
    outputs = jax.eval_shape(objective.predict, params, data.inputs)
    if not are_labels(data.targets, outputs):
        raise ValueError(
            f"{what} got labels='sampled' with targets {described(data.targets)} for "
            f"outputs {list(outputs.shape)}, expected class indices or squared_error; "
            f"take labels='exact' or 'true'"
        )


def are_labels(targets: Any, outputs: Any) -> bool:
    """Whether targets are a class index for each distribution in the outputs."""
    single = isinstance(targets, np.ndarray | Array)
    integers = single and jnp.issubdtype(targets.dtype, jnp.integer)
    return integers and targets.shape == outputs.shape[:-1]


def described(tree: Any) -> str:
    """Dtypes and shapes of an array, or of the arrays of a tree."""
    return " and ".join(
        f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)
    )


def token_shares(loss: OutputLoss, targets: Any, dtype: Any) -> Array:
    """(n, t) how much each token's own loss counts in that of its example."""
    kept = (targets >= 0).astype(dtype)
    if loss is sequence_nll_sum:
        return kept
    return kept / jnp.maximum(jnp.sum(kept, axis=1, keepdims=True), 1)


def label_counts(objective: Objective, outputs: Any, targets: Any) -> Array:
    """(n,) how many independent labels an example's loss is the mean of.

    A loss that is a mean over T tokens has 1/T of the Fisher matrix of their sum, but
    squared gradients of drawn labels 1/T² of it: they count T times.
    """
    if objective.loss is sequence_nll:
        return jnp.maximum(jnp.sum(targets >= 0, axis=1), 1).astype(outputs.dtype)
    return jnp.ones(outputs.shape[0], outputs.dtype)
