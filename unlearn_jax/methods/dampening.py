"""What the dampening methods share: importances, then shrinkage."""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.diagonal import (
    batch_gradient_moment,
    empirical_fisher_diagonal,
)
from unlearn_jax.loop import tracing
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.loss import squared_norm
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import (
    Array,
    Batch,
    Outputs,
    Params,
    PerExample,
    PRNGKey,
    Targets,
    Variables,
)

Kind: TypeAlias = Literal["example", "batch", "class_batch", "label_free", "norm"]


class Importance(NamedTuple):
    """Value: how much each parameter matters to a set of examples.

    Attributes:
        value: Tree like the parameters, non-negative.
        batch_size: Examples averaged before the moment was taken: 1 for per-example
            squares. Importances of different batch sizes cannot be compared.
    """

    value: Params
    batch_size: Array


def importance(
    learner: Learner, variables: Variables, data: Batch, kind: Kind, batch_size: int
) -> Importance:
    """Importance of every parameter to ``data``.

    Args:
        learner: Model and loss; ``l2`` is left out.
        variables: Where gradients are taken, batch statistics frozen.
        data: Examples with weights.
        kind: "example": mean of squared per-example gradients (the diagonal of the
            empirical Fisher). "batch": mean over batches of the squared gradient of the
            batch's mean loss. "class_batch": the same with one class after another in
            the batches, from a sorted copy of the data. "label_free": mean over
            batches of the absolute gradient of the mean squared norm of the outputs.
            "norm": the same of the norm.
        batch_size: Not read for "example"; for the others part of the definition.
    """
    if kind == "example":
        objective = bind(learner.model, variables.stats, learner.loss)
        value = empirical_fisher_diagonal(objective, variables.params, data)
        return Importance(value, jnp.asarray(1, jnp.int32))
    if kind == "class_batch":
        order = jnp.argsort(jnp.asarray(data.targets), stable=True)
        data = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], data)
    losses = {"label_free": squared_norm, "norm": _norm}
    value = batch_gradient_moment(
        bind(learner.model, variables.stats, losses.get(kind, learner.loss)),
        variables.params,
        data,
        batch_size=batch_size,
        moment=jnp.abs if kind in losses else jnp.square,
    )
    return Importance(value, jnp.asarray(batch_size, jnp.int32))


def dampening_method(
    learner: Learner, kind: Kind, batch_size: int, *, alpha: float, dampening: float
) -> Method:
    """Importance over the training set once; at a request, over the forget set.

    The state is the :class:`Importance` over the training set.
    """

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Importance:
        del key
        return importance(learner, original, train, kind, batch_size)

    def forget(
        key: PRNGKey, state: Importance, variables: Variables, request: Request
    ) -> tuple[Variables, Importance]:
        del key
        forgotten = importance(learner, variables, request.forget, kind, batch_size)
        params = dampen(
            variables.params, state, forgotten, alpha=alpha, dampening=dampening
        )
        return variables._replace(params=params), state

    return Method(prepare, forget)


def dampen(
    params: Params,
    overall: Importance,
    forgotten: Importance,
    *,
    alpha: Any,
    dampening: float,
) -> Params:
    """Shrink each parameter whose importance to the forget set stands out.

    Wherever F_forget > alpha F: theta becomes theta min(dampening F / F_forget, 1).

    Raises:
        ValueError: the two importances were taken at different batch sizes.
    """
    if not tracing(overall, forgotten):
        sizes = int(overall.batch_size), int(forgotten.batch_size)
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"importance of the training set was taken at batch size {sizes[0]}, "
                f"of the forget set at {sizes[1]}; their ratio means nothing: prepare "
                f"again with the batch size of this method"
            )

    def shrink(theta: Array, over: Array, forgot: Array) -> Array:
        # Asked this way round, NaN is never "kept": it comes out.
        kept = forgot <= alpha * over
        ratio = over / jnp.where(kept, 1, forgot)
        factor = jnp.minimum(dampening * ratio, 1)
        return jnp.where(kept, theta, factor * theta).astype(theta.dtype)

    return jax.tree.map(shrink, params, overall.value, forgotten.value)


def pooled_ratios(above: Params, below: Params) -> Array:
    """All ratios of two trees in one vector; NaN where one is not finite."""
    ratios = jax.tree.map(lambda a, b: (a / b).ravel(), above, below)
    pooled = jnp.concatenate(jax.tree.leaves(ratios))
    return jnp.where(jnp.isfinite(pooled), pooled, jnp.nan)


def _norm(outputs: Outputs, targets: Targets) -> PerExample:
    """‖outputs‖, of slope zero where they are zero."""
    squares = squared_norm(outputs, targets)
    none = squares == 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, squares)))
