"""Slopes of the loss in the outputs, under the labels that a Fisher matrix is about."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax import tree
from unlearn_jax.curvature.per_example import (
    PerExample,
    block_size,
    output_slopes,
    per_example,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params, PRNGKey

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
        batch, keys = present(batch), None
        if drawn:
            batch, numbers = _without_numbers(batch, jnp.shape(data.targets)[1:])
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        linear = per_example(objective.predict, at, batch.inputs)
        cotangents, scales = label_slopes(
            plan.labels, objective, linear.outputs, batch.targets, keys, plan.samples
        )
        return _both(linear, cotangents, scales, batch.weights, plan, constants)

    if batch_size is None:
        taped = tape(objective.predict, params, data.inputs)
        batch_size = block_size(taped, leading_axis(data))
    total = accumulate(
        sums,
        _with_numbers(data) if drawn else data,
        params,
        key if drawn else None,
        constants,
        batch_size=batch_size,
        mesh=mesh,
    )
    mass = jnp.sum(data.weights)
    return tree.scale(1.0 / jnp.where(mass > 0, mass, 1), total)


def _with_numbers(data: Batch) -> Batch:
    """The examples' numbers as a last column of the targets."""
    n = leading_axis(data)
    targets = jnp.asarray(data.targets).reshape(n, -1)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        # Labels are drawn about the outputs: real-valued targets are not read.
        targets = jnp.zeros(targets.shape, jnp.int32)
    column = jnp.arange(n, dtype=jnp.int32)[:, None]
    return data._replace(
        targets=jnp.concatenate([targets.astype(jnp.int32), column], axis=1)
    )


def _without_numbers(batch: Batch, shape: tuple[int, ...]) -> tuple[Batch, Array]:
    joined = jnp.asarray(batch.targets)
    targets = joined[:, :-1].reshape(-1, *shape)
    return batch._replace(targets=targets), joined[:, -1]


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
    return once, jax.lax.scan(step, zero, (cotangents, scales))[0]


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
        labels: "true": those given; "sampled": drawn from the model; "exact": the
            eigenpairs of the loss's Hessian in the outputs of an example, which for a
            likelihood is the expectation over the model's labels.
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
        return output_eigenpairs(objective, outputs, targets)

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
    return cotangents, jnp.full((samples, n), 1 / samples, outputs.dtype)


def output_eigenpairs(
    objective: Objective, outputs: Any, targets: Any
) -> tuple[Array, Array]:
    """Eigenvectors (s, n, …) and values (s, n) of the loss's Hessian in the outputs."""
    shape = outputs.shape[1:]

    def loss(flat: Array, target: Array) -> Array:
        return objective.loss(flat.reshape(1, *shape), target[None])[0]

    flat = outputs.reshape(outputs.shape[0], -1)
    values, vectors = jnp.linalg.eigh(jax.vmap(jax.hessian(loss))(flat, targets))
    cotangents = jnp.moveaxis(vectors, 2, 0).reshape(-1, *outputs.shape)
    return cotangents, values.T


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
    integers = jnp.issubdtype(data.targets.dtype, jnp.integer)
    if not integers or data.targets.shape != outputs.shape[:-1]:
        raise ValueError(
            f"{what} got labels='sampled' with targets {data.targets.dtype}"
            f"{list(data.targets.shape)} for outputs {list(outputs.shape)}, expected "
            f"class indices or squared_error; take labels='exact' or 'true'"
        )
