"""SalUn on a denoiser: forgotten images under another caption's prediction."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.methods.erasing.images import Images, noisy
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.methods.erasing.tune import left_out, picked, slope_of, tune
from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.masked import Mask, largest
from unlearn_jax.methods.saliency import check_fraction, gain
from unlearn_jax.options import checked
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

SALIENCIES = ("gradient", "second_order", "random", "none")


@checked()
def salun(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    saliency: str = "gradient",
    fraction: float = 0.5,
    part: str = "network",
    retain_weight: float = 1.0,
    moving: bool = False,
    steps: int = 300,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
    points: int = 512,
) -> Variables:
    """‖ε_θ(x_t, c_f) − ε(x_t, c')‖² on forgotten images, and the plain loss on others.

    Args:
        key: Draws images, times and noise.
        generator: Whose denoiser is tuned.
        variables: Of the original.
        images: x, c_f and c' (``instead``); the images that stay.
        saliency: What the mask ranks parameters by, see :func:`salient`.
        fraction: Share of the part's numbers that may move; not read for "none".
        part: What may move at most.
        retain_weight: α, both losses as means over pixels.
        moving: The target is told by the model as it is, without a gradient, as
            published. False: by the original.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Of either kind of images in a step.
        points: Noised images that the mask is found by.

    Raises:
        ValueError: an unknown saliency or part, a share outside of 0 to 1.

    Cost: two gradients and a prediction for each image of a step; the mask one gradient
        for each of ``points``, two with "second_order".
    Source: Fan et al. 2024, arXiv 2310.12508. Differs: the released code sums the
        retained loss over pixels and averages the other, so that its α of 1e-3 is
        1e-3 × pixels here; gradients are not clipped, neither for the mask nor after;
        the mask's gradient is that of plain predictions, without guidance; the anchor
        is named, not "the next class".
    """
    objective = diffusion_objective(generator.denoiser)
    first, second = jax.random.split(key)
    moves: Any = part_of(generator.denoiser, variables.params, part)
    if saliency != "none":
        given = first, generator, variables, images
        options: dict[str, Any] = {"fraction": fraction, "points": points}
        moves = salient(*given, moves=moves, saliency=saliency, **options)
    forget = twice_captioned(images)

    def loss(key: Any, params: Any, constants: Any) -> Any:
        original, forget, retain = constants
        first, second, third = jax.random.split(key, 3)
        own = picked(first, forget, batch_size)
        teacher = params if moving else original.params
        total = objective.risk(params, renamed(second, generator, teacher, own))
        if not left_out(retain_weight):
            kept = noisy(third, generator, retain, batch_size, drop=0.1)
            total = total + retain_weight * objective.risk(params, kept)
        return total

    moved = tune(
        second,
        variables.params,
        slope_of(loss),
        (variables, forget, images.retain),
        moves=moves,
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


def twice_captioned(images: Images) -> Batch:
    """Forgotten images, each with its own caption and the anchor's as targets."""
    captions = {"own": images.forget.targets, "instead": images.instead}
    return Batch(images.forget.inputs, captions, images.forget.weights)


def renamed(key: PRNGKey, generator: Generator, teacher: Params, own: Batch) -> Batch:
    """Such images under noise, and what a teacher tells for the anchor's caption."""
    draws = draw(key, generator.schedule, own.inputs, drop=0.0)
    seen, other = (
        noised(generator.schedule, Batch(own.inputs, tokens, own.weights), draws)
        for tokens in (own.targets["own"], own.targets["instead"])
    )
    told = diffusion_objective(generator.denoiser).predict(teacher, other.inputs)
    return seen._replace(targets=jax.lax.stop_gradient(told))


def salient(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    moves: Any,
    saliency: str = "gradient",
    fraction: float = 0.5,
    points: int = 512,
) -> Mask:
    """The share of a part's parameters that matters most to the forgotten images.

    Args:
        key: Draws images, times and noise, or the random mask.
        generator: Whose denoiser is asked.
        variables: Of the original.
        images: See :func:`salun`.
        moves: The part, a tree of booleans.
        saliency: "gradient": |g| of the mean diffusion loss of forgotten images.
            "second_order": g² / F with F the diagonal of the retained images' empirical
            Fisher. "random": any, the control.
        fraction: Of the part's numbers.
        points: Noised images of each kind.

    Raises:
        ValueError: an unknown saliency, a share outside of 0 to 1.
    """
    check_fraction(fraction)
    if saliency not in SALIENCIES:
        raise ValueError(
            f"saliency is {saliency!r}; choose from {', '.join(SALIENCIES)}"
        )
    params, objective = variables.params, diffusion_objective(generator.denoiser)
    first, second = jax.random.split(key)
    if saliency == "random":
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(first, len(leaves))
        pairs = zip(keys, leaves, strict=True)
        drawn = [jax.random.uniform(k, leaf.shape, leaf.dtype) for k, leaf in pairs]
        sizes = jax.tree.unflatten(structure, drawn)
    else:
        own = noisy(first, generator, images.forget, points)
        sizes = risk_gradient(objective, params, own)
        if saliency == "second_order":
            kept = noisy(second, generator, images.retain, points)
            cost = empirical_fisher_diagonal(objective, params, kept)
            sizes = jax.tree.map(gain, sizes, cost)
    inside = jax.tree.map(lambda leaf, own: leaf.size * own, params, moves)
    count = round(fraction * sum(jax.tree.leaves(inside)))
    # What is outside of the part ranks below everything in it.
    ranked = jax.tree.map(_outside_last, sizes, moves)
    return largest(ranked, count)


def _outside_last(sizes: Array, inside: bool) -> Array:
    return jnp.abs(sizes) if inside else jnp.full_like(sizes, -1)
