"""Influence with an empirical Fisher of few samples: as meant, and as released."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.fisher import empirical_fisher
from unlearn_jax.curvature.operator import damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.loop import repeat
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, solving
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.solution import Report, direct, report, usable
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables

VARIANTS = ("intended", "published")


@entrance(signed=("alpha",))
def influence_unlearning(
    learner: Learner,
    *,
    alpha: float = 1.0,
    variant: str = "intended",
    samples: int = 1000,
    damping: float = 1.0,
    tol: float = 1e-6,
    max_steps: int = 100,
    batch_size: int = 256,
) -> Method:
    """θ + alpha · (damping I + F)⁻¹ v with v = W_f/W (∇R_forget − ∇R_retain).

    Args:
        learner: Model and loss; l2 is left out.
        alpha: Length of the step (no unit); from below 1 to 20 in use.
        variant: "intended": F is the empirical Fisher of the samples, inverted by
            conjugate gradients. "published": what the released code computes, see
            :func:`published_correction`; about one plain step along v.
        samples: N, the retain examples that F is made of, drawn at random; "published"
            reads the first N + 2 in order, as its loop does.
        damping: λ of the inverse; "published" knows only 1.
        tol: Relative residual at which the solver stops (no unit).
        max_steps: Most products of the solver.
        batch_size: Examples held at once.

    Batch statistics stay.

    Raises:
        ValueError: an unknown ``variant``, or an impossible value.

    Cost: one gradient per example, and some two per sample and product.
    Source: IU of Jia et al. 2023, arXiv 2304.04934, with WoodFisher of Singh & Alistarh
        2020, arXiv 2004.14340. Differs by default: a true inverse.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from {', '.join(VARIANTS)}"
        )
    if samples < 1 or not damping > 0:
        raise ValueError(
            f"samples and damping must be positive, got {samples} and {damping}"
        )
    if variant == "published" and damping != 1:
        raise ValueError(
            f"the published recursion has damping 1, got {damping}; take the intended "
            f"variant for another"
        )

    def reported(
        key: PRNGKey, state: tuple[()], variables: Variables, request: Request
    ) -> tuple[Variables, tuple[()], Report]:
        objective = bind(learner.model, variables.stats, learner.loss)
        params = variables.params
        slopes = [
            risk_gradient(objective, params, part, batch_size=batch_size)
            for part in (request.forget, request.retain)
        ]
        out, kept = (jnp.sum(part.weights) for part in request)
        whole = out + kept
        share = out / jnp.where(whole > 0, whole, 1)
        vector = tree.scale(share, tree.subtract(*slopes))
        if variant == "published":
            chosen = first(request.retain, samples + 2)
            solution = direct(
                published_correction(objective, params, chosen, vector, samples)
            )
        else:
            chosen = draw(key, request.retain, samples)
            size = min(batch_size, samples)
            fisher = over_batches(
                empirical_fisher, objective, params, chosen, batch_size=size
            )
            solution = conjugate_gradient(
                damped(fisher, damping), vector, tol=tol, max_steps=max_steps
            )
        moved = tree.axpy(alpha, usable(solution), params)
        return variables._replace(params=moved), state, report(solution)

    return solving(reported)


def draw(key: PRNGKey, data: Batch, samples: int) -> Batch:
    """Examples of positive weight in random order; of weight zero if too few."""
    places = jax.random.uniform(key, data.weights.shape, jnp.float32)
    order = jnp.argsort(jnp.where(data.weights > 0, places, 2.0))[:samples]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], data)


def first(data: Batch, count: int) -> Batch:
    """The first examples of positive weight; of weight zero if too few."""
    order = jnp.argsort(data.weights <= 0, stable=True)[:count]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], data)


def published_correction(
    objective: Objective, params: Params, data: Batch, vector: Params, samples: int
) -> Params:
    """The recursion that the released code runs in place of WoodFisher's.

    With o = g₁, the gradient of the first example, and k = vector, for i = 2, 3, …:
        t = o·gᵢ;   k ← k − (k·gᵢ / (N + t)) o;   o ← o − (t / (N + t)) o.
    In WoodFisher o is the running inverse times gᵢ, afresh for every i. Here o stays a
    multiple of g₁, so that the result is the vector plus a multiple of g₁.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: Examples, those of positive weight first; weights count as 0 or 1.
        vector: v.
        samples: N; the released loop stops only after N + 2 examples.

    Cost: one gradient per example, one at a time.
    """

    def slope(i: Any, constants: Any) -> Params:
        params, data = constants
        example = jax.tree.map(lambda leaf: leaf[i][None], data)
        return jax.grad(lambda p: objective.example_losses(p, example)[0])(params)

    def step(i: Any, state: tuple[Params, Params], constants: Any) -> Any:
        k, o = state
        g = slope(i + 1, constants)
        t = tree.dot(o, g)
        k = tree.axpy(-tree.dot(k, g) / (samples + t), o, k)
        return k, tree.axpy(-t / (samples + t), o, o)

    data = jax.tree.map(jnp.asarray, data)
    count = jnp.sum(data.weights > 0).astype(jnp.int32)
    constants = (params, data)
    start = (vector, slope(0, constants))
    return repeat(jnp.maximum(count - 1, 0), step, start, constants)[0]
