"""Saliency masks, and training methods that move nothing but what is salient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.masked import Mask, largest, under_mask
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Params, PRNGKey, Variables

SALIENCIES = ("gradient", "second_order", "random")


def saliency_mask(gradient: Params, fraction: float) -> Mask:
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
    return largest(sizes, round(fraction * tree.size(gradient)))


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
    saliency: str = "gradient",
    leaky: bool = False,
    saliency_batch: int = 256,
    **options: Any,
) -> Method:
    """Any method, moving only the parameters that are salient to the forget set.

    The mask is made at the request, see ``masked.under_mask``. With g the gradient of
    the mean forget loss (signed sum over examples first, absolute value after) and F
    the diagonal of the retain set's empirical Fisher, it takes the largest of what
    ``saliency`` says.

    Args:
        factory: Builds the method from a learner: ``random_labels``, ``finetune``, …
        learner: Model, loss and recipe.
        fraction: Share of the parameters that may move (no unit).
        saliency: "gradient": |g|, as published. "second_order": g² / F, twice what the
            forget loss can gain by this parameter alone for each nat that it costs the
            retain set; where F is zero and g is not, first of all. "random": any, the
            control.
        leaky: Mask the gradients alone, so that weight decay and l2 still move the
            rest. By default the rest does not move at all.
        saliency_batch: Examples held at once for the gradient (memory only).
        **options: Hyper-parameters of the method.

    Batch statistics move if the method moves them.

    Raises:
        ValueError: ``fraction`` is outside [0, 1], an unknown ``saliency``, or a method
            that reads a trace.

    Cost: the method's, and one gradient per forget example; "second_order" one per
        retain example too, "random" none.
    Source: Fan et al. 2024, arXiv 2310.12508, §4. As published; ``leaky`` is how the
        released code behaved before February 2026, random masks are a control of
        theirs. Not published: "second_order".
    """
    check_fraction(fraction)
    if saliency not in SALIENCIES:
        raise ValueError(
            f"saliency {saliency!r} is unknown; choose from {', '.join(SALIENCIES)}"
        )

    def choose(
        key: PRNGKey, variables: Variables, request: Request
    ) -> tuple[Params, Mask]:
        params = variables.params
        if saliency == "random":
            drawn = tree.random_like(key, params, jax.random.uniform)
            return params, saliency_mask(drawn, fraction)
        objective = bind(learner.model, variables.stats, learner.loss)
        gradient = risk_gradient(
            objective, params, request.forget, batch_size=saliency_batch
        )
        if saliency == "second_order":
            cost = empirical_fisher_diagonal(objective, params, request.retain)
            gradient = jax.tree.map(gain, gradient, cost)
        return params, saliency_mask(gradient, fraction)

    return under_mask(factory, learner, choose, leaky=leaky, **options)


def gain(gradient: Array, curvature: Array) -> Array:
    """g² / F, zero where g is."""
    none = gradient == 0
    return jnp.where(none, 0, gradient * gradient / jnp.where(none, 1, curvature))
