"""Saliency masks, and training methods that move nothing but what is salient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Bool, PyTree

from unlearn_jax import tree
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import guarded
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.models.model import Model
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


def saliency_mask(gradient: Params, fraction: float) -> PyTree[Bool[Array, "..."]]:
    """The parameters whose gradient is largest in size, by one ranking over all leaves.

    Args:
        gradient: Tree like the parameters.
        fraction: Share of the parameters to select, from 0 to 1 (no unit); rounded to
            a whole number of them, and exactly that many are selected: of equal ones
            those that come first in the order of the leaves.

    Returns:
        Tree of booleans like ``gradient``.

    Raises:
        ValueError: ``fraction`` is outside [0, 1].
    """
    check_fraction(fraction)
    sizes = jax.tree.map(jnp.abs, gradient)
    flat, _ = jax.flatten_util.ravel_pytree(sizes)
    count = round(fraction * flat.size)
    order = jnp.argsort(flat, descending=True, stable=True)
    chosen = jnp.zeros(flat.shape, bool).at[order[:count]].set(True)
    leaves, structure = jax.tree.flatten(gradient)
    ends = [sum(leaf.size for leaf in leaves[: i + 1]) for i in range(len(leaves) - 1)]
    parts = zip(jnp.split(chosen, ends), leaves, strict=True)
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in parts]
    )


def check_fraction(fraction: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: ``fraction`` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"fraction must be from 0 to 1, the share of the parameters to select; "
            f"got {fraction}"
        )


def with_saliency(
    factory: Callable[..., Method],
    learner: Learner,
    *,
    fraction: float = 0.5,
    leaky: bool = False,
    saliency_batch: int = 256,
    **options: Any,
) -> Method:
    """Any method, moving only the parameters that are salient to the forget set.

    The mask is drawn at the request from the gradient of the mean forget loss (signed
    sum over examples first, absolute value after). It travels to the method's own steps
    with the batch statistics, so that it is an argument of every compiled loop.

    Args:
        factory: Builds the method from a learner: ``random_labels``, ``finetune``, …
        learner: Model, loss and recipe.
        fraction: Share of the parameters that may move (no unit).
        leaky: Mask the gradients alone, so that weight decay and l2 still move the
            rest. By default the rest does not move at all.
        saliency_batch: Examples held at once for the gradient (memory only).
        **options: Hyper-parameters of the method.

    Batch statistics move if the method moves them.

    Raises:
        ValueError: ``fraction`` is outside [0, 1], or a method that reads a trace.

    Cost: the method's, and one gradient per forget example.
    Source: Fan et al. 2024, arXiv 2310.12508, §4. As published; ``leaky`` is how the
        released code behaved before February 2026.
    """
    check_fraction(fraction)
    masked = learner._replace(model=_masked_model(learner.model, leaky=leaky))
    method = factory(masked, **options)

    if method.reads_trace:
        raise ValueError(
            "with_saliency got a method that reads a trace, whose checkpoints have no "
            "mask; expected one that does not: take another method"
        )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Any:
        everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), original.params)
        return method.prepare(key, _dress(original, everything), train)

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        objective = bind(learner.model, variables.stats, learner.loss)
        gradient = risk_gradient(
            objective, variables.params, request.forget, batch_size=saliency_batch
        )
        mask = saliency_mask(gradient, fraction)
        moved, state = method.forget(key, state, _dress(variables, mask), request)
        params = moved.params
        if not leaky:
            params = tree.where(mask, params, variables.params)
        return Variables(params, moved.stats["stats"]), state

    return guarded(learner, Method(prepare, forget))


def _dress(variables: Variables, mask: Any) -> Variables:
    """Variables of the masked model: the mask and what it holds ride in the stats."""
    riding = {"stats": variables.stats, "mask": mask, "held": variables.params}
    return Variables(variables.params, riding)


def _masked_model(model: Model, *, leaky: bool) -> Model:
    """The same outputs, but a gradient of zero outside of the mask.

    Strictly, what is outside is read from where it is held, so whatever an optimiser
    does to it there has no effect until it is put back.
    """

    def undress(variables: Variables) -> Variables:
        riding = variables.stats
        held = jax.lax.stop_gradient(variables.params) if leaky else riding["held"]
        params = tree.where(riding["mask"], variables.params, held)
        return Variables(params, riding["stats"])

    def init(key: PRNGKey) -> Variables:
        fresh = model.init(key)
        everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), fresh.params)
        return _dress(fresh, everything)

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        outputs, after = model.apply_train(key, undress(variables), inputs)
        stats = {**variables.stats, "stats": after.stats}
        return outputs, Variables(variables.params, stats)

    return Model(
        init,
        lambda variables, inputs: model.apply(undress(variables), inputs),
        apply_train,
        lambda variables, inputs: model.features(undress(variables), inputs),
    )
