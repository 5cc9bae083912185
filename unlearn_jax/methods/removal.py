"""What taking examples out does to the slope at which training stopped.

Followed for a time T (the sum of the rates of its steps), a gradient leads along an
eigenvector of curvature σ by (1 − exp(−σT)) / σ ≈ 1 / (σ + 1/T) of the way: training
that stops behaves like the minimiser of R + ‖θ − θ₀‖² / 2T, R the objective with its
l2, and 1/T is the stiffness of a spring that holds the parameters at their start. At
that minimiser θ̂ the spring pulls as much as the slope pushes, (θ̂ − θ₀) / T = −∇R. With
the forget set (W_f of the weight W = W_f + W_r) gone, the slope of the new objective at
θ̂ is no more than

    ∇R_retain + l2 θ̂ + (θ̂ − θ₀) / T = ∇R_retain − ∇R_all
                                     = −W_f / W (∇R_forget − ∇R_retain),

R_forget, R_retain, R_all the mean losses without l2. In this difference l2 cancels, and
so does whatever training has left undone: −∇R_retain alone would train on. Newton's
step is (H_retain + l2 + 1/T)⁻¹ W_f / W (∇R_forget − ∇R_retain). With ∇R_all known from
before, the same vector is W_f / W_r (∇R_forget − ∇R_all) and reads the forget set only.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.method import Request
from unlearn_jax.train.objective import Objective
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import training_time
from unlearn_jax.types import Array, Params, Scalar


def stiffness_of(
    learner: Learner, damping: float | None
) -> Callable[[Request], Scalar]:
    """``request -> damping``: the one given, or 1/T of training on all of its data.

    Raises:
        ValueError: None for a recipe of "adam", whose steps have no rate.
    """
    if damping is not None:
        return lambda _: jnp.asarray(damping)
    recipe = learner.recipe
    if recipe.optimizer != "sgd":
        raise ValueError(
            f"damping is None, which reads the learning rates of SGD; the recipe says "
            f"{recipe.optimizer!r}: give a damping, such as 0.01"
        )

    def by_time(request: Request) -> Scalar:
        # Only how many weights are positive matters, not where they stand.
        weights = jnp.concatenate([jnp.asarray(part.weights) for part in request])
        return 1 / training_time(recipe, weights)

    return by_time


def removal_slope(
    objective: Objective,
    params: Params,
    request: Request,
    mean: Params | None = None,
    *,
    batch_size: int = 256,
) -> Params:
    """W_f / W (∇R_forget − ∇R_retain), minus the slope that removal leaves at θ̂.

    Args:
        objective: Its l2 is left out, since it cancels.
        params: θ̂.
        request: Forget and retain set.
        mean: ∇R_all without l2, where it is known: then the retain set's examples are
            not read, only their weights.
        batch_size: Examples whose activations are held at once.

    Returns:
        Tree like ``params``; zero where there is nothing to forget.

    Cost: a gradient for each example that is read.
    """
    alone = objective._replace(l2=0.0)
    out, kept = (jnp.sum(part.weights) for part in request)
    if mean is None:
        rest, whole = request.retain, out + kept
        mean = risk_gradient(alone, params, rest, batch_size=batch_size)
    else:
        whole = kept
    own = risk_gradient(alone, params, request.forget, batch_size=batch_size)
    return tree.scale(_share(out, whole), tree.subtract(own, mean))


def _share(part: Array, whole: Any) -> Array:
    return part / jnp.where(whole > 0, whole, 1)
