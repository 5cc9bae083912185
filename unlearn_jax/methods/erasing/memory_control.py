"""MemControl: which layers to tune so that a few repeated images are not remembered."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from unlearn_jax.methods.erasing.layer_masks import every_mask
from unlearn_jax.methods.erasing.rollouts import Generator, predicted
from unlearn_jax.options import check_whole
from unlearn_jax.types import Array, Variables

Judged = Callable[[Bool[np.ndarray, " k"]], tuple[float, float]]
"""What is tuned → (how much is remembered, how badly it draws); less is better."""


def remembered_by_text(
    generator: Generator,
    variables: Variables,
    image: Float[Array, "n h w c"],
    time: Any,
    tokens: Any,
) -> Float[Array, " n"]:
    """‖ε(x_t, c) − ε(x_t, ∅)‖ of each point: large where a caption recalls an image.

    MemControl takes the largest of a batch, or the mean.

    Source: arXiv 2405.19458, after Wen et al. 2024.
    """
    tokens = jnp.asarray(tokens)
    both = jnp.concatenate([tokens, generator.null(len(tokens))])
    image, time = (jnp.concatenate([jnp.asarray(each)] * 2) for each in (image, time))
    found = predicted(generator.denoiser, variables, image, time, both)
    told, silent = jnp.split(found, 2)
    return jnp.linalg.norm(told - silent, axis=1)


def nearest_ratio(
    drawn: Float[Any, "n ..."], kept: Float[Any, "m ..."]
) -> Float[np.ndarray, " n"]:
    """Distance to the nearest of ``kept`` over that to its second nearest; 0: a copy.

    Raises:
        ValueError: fewer than two kept images.
    """
    drawn, kept = (np.asarray(each, np.float64) for each in (drawn, kept))
    if len(kept) < 2:
        raise ValueError(f"got {len(kept)} images, expected two or more to compare")
    flat = [each.reshape(len(each), -1) for each in (drawn, kept)]
    apart = np.linalg.norm(flat[0][:, None] - flat[1][None], axis=2)
    first = np.sort(apart, axis=1)
    return first[:, 0] / np.maximum(first[:, 1], 1e-12)


def front(points: Float[Any, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Which points no other beats: no more in both numbers, and less in one."""
    points = np.asarray(points, np.float64)
    no_worse = np.all(points[:, None] <= points[None], axis=2)
    better = np.any(points[:, None] < points[None], axis=2)
    return ~np.any(no_worse & better, axis=0)


def searched(
    seed: int, judged: Judged, count: int, *, budget: int, first: int = 8
) -> tuple[Bool[np.ndarray, "b k"], Float[np.ndarray, "b 2"]]:
    """Masks that a search asks for, none twice, and what they were found to be.

    ``first`` are drawn; each further one is a point of the front so far in which one
    group is turned over, drawn again where that is known, else any that is not known.

    Args:
        seed: Draws them.
        judged: Tunes under a mask, and tells both numbers.
        count: k.
        budget: Masks that may be tuned.
        first: Of them drawn blindly.

    Raises:
        ValueError: no budget, or more than there are masks.

    Source: the outer loop of arXiv 2405.19458. Differs: this search for Optuna's, and
        masks alone, where the paper searches rates too.
    """
    check_whole("budget", budget)
    everything = every_mask(count)
    if budget > len(everything):
        raise ValueError(
            f"got a budget of {budget} for {len(everything)} masks, expected at most "
            "all: list them"
        )
    random = np.random.default_rng(seed)
    asked: list[int] = []
    found: list[tuple[float, float]] = []
    weights = 2 ** np.arange(count)[::-1]
    while len(asked) < budget:
        unknown = np.setdiff1d(np.arange(len(everything)), asked)
        number = int(random.choice(unknown))
        if len(asked) >= first:
            best = np.array(asked)[front(np.array(found))]
            turned = (best[:, None] ^ weights[None]).ravel()
            turned = np.setdiff1d(turned, asked)
            if len(turned):
                number = int(random.choice(turned))
        asked.append(number)
        found.append(judged(everything[number]))
    return everything[asked], np.array(found)


def hypervolume(points: Float[Any, "n 2"], worst: Float[Any, " 2"]) -> float:
    """Area between a front and a point that is worse than all of it."""
    points = np.asarray(points, np.float64)
    worst = np.asarray(worst, np.float64)
    best = points[front(points)]
    best = np.unique(best[np.all(best < worst, axis=1)], axis=0)
    area, height = 0.0, worst[1]
    for left, below in best:
        area += (worst[0] - left) * max(height - below, 0.0)
        height = min(height, below)
    return float(area)


def masked_names(names: Any, mask: Any) -> str:
    """The groups of a mask in words."""
    chosen = [name for name, own in zip(names, np.asarray(mask), strict=True) if own]
    return ", ".join(chosen) or "nothing"


def ranked(values: Any, mine: int) -> int:
    """Place of an entry, 1 where none is larger."""
    values = np.asarray(values, np.float64)
    return int(1 + np.sum(values > values[mine]))
