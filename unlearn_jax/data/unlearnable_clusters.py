"""Images that teach nothing, whatever their labels: one perturbation a cluster."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from unlearn_jax.data.unlearnable import Levels, from_pixels, levels_of, to_pixels
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Batch


class Perturbed(NamedTuple):
    """Value: a training set in which each image is moved like its whole cluster.

    Attributes:
        data: What a learner sees; targets and weights are as they were.
        perturbations: (k, h, w, c) of each cluster, in pixels from 0 to 1.
        clusters: (n,) which one each image is of.
        centres: (k, f) of the features.
    """

    data: Batch
    perturbations: Float[np.ndarray, "k h w c"]
    clusters: Int[np.ndarray, " n"]
    centres: Float[np.ndarray, "k f"]


def unlearnable_clusters(
    batch: Batch,
    features: Callable[[Any], Any],
    *,
    clusters: int = 10,
    bound: float = 16 / 255,
    steps: int = 50,
    rate: float = 1 / 255,
    everyone: bool = False,
    levels: Levels | None = None,
    seed: int = 0,
) -> Perturbed:
    """Push every cluster of images to where a surrogate sees the next cluster.

    Images are clustered by a surrogate's features; for each cluster one perturbation δ
    within ± ``bound`` minimises KL(softmax μ ‖ softmax f(x + δ)), μ the centre of the
    next cluster (of the last: the first), by ``steps`` steps of the sign of the
    gradient. Labels are never read, so that whoever learns from the images with labels
    of their own learns the perturbations.

    Args:
        batch: Images (n, height, width, channels); those of weight zero stay.
        features: The surrogate, from inputs to (n, f).
        clusters: K.
        bound: Largest change of a pixel, as a share of black to white.
        steps: Of each perturbation.
        rate: Of a step, in the same unit.
        everyone: Take the mean over all images instead of those of the cluster, as the
            released code does.
        levels: What black and white are; None takes :func:`levels_of` the batch.
        seed: Draws the first centres.

    Raises:
        ValueError: more clusters than images, fewer than two, a bound or rate that is
            not positive, no images, features that are no rows.

    Cost: K × steps gradients of the surrogate over a cluster each (over all images with
        ``everyone``), in memory at once.
    Source: Zhang et al. 2023, arXiv 2301.01217 (UC). Differs: a perturbation is free,
        not drawn from a generator of a network; sign steps; its own cluster alone.
        As there the features stand in for logits.
    """
    check_whole("unlearnable_clusters: clusters", clusters, least=2)
    check_whole("unlearnable_clusters: steps", steps)
    for name, value in (("bound", bound), ("rate", rate)):
        check_number(f"unlearnable_clusters: {name}", value, positive=True)
    levels = levels or levels_of(batch)
    there = np.flatnonzero(np.asarray(batch.weights) > 0)
    if clusters > len(there):
        raise ValueError(
            f"unlearnable_clusters got {clusters} clusters for {len(there)} images, "
            "expected at least one image in each: lower clusters"
        )
    images = np.asarray(batch.inputs)
    pixels = to_pixels(images[there], levels).astype(np.float32)
    black, white = (
        jnp.asarray(level, jnp.float32).reshape(1, 1, 1, -1) for level in levels
    )

    def seen(values: Any) -> Any:
        return features(black + values * (white - black))

    known = np.asarray(jax.jit(seen)(pixels), np.float64)
    if known.ndim != 2:
        raise ValueError(
            f"the surrogate gave features of shape {known.shape}, expected a row for "
            "each image: flatten them"
        )
    centres, own = k_means(known, clusters, seed=seed)
    moved = np.zeros((clusters, *images.shape[1:]), np.float32)

    @jax.jit
    def step(delta: Any, values: Any, target: Any) -> Any:
        def apart(delta: Any) -> Any:
            told = jax.nn.log_softmax(seen(values + delta[None]))
            aim = jax.nn.log_softmax(target)[None]
            return jnp.mean(jnp.sum(jnp.exp(aim) * (aim - told), axis=-1))

        return jnp.clip(delta - rate * jnp.sign(jax.grad(apart)(delta)), -bound, bound)

    for cluster in range(clusters):
        values = pixels if everyone else pixels[own == cluster]
        target = centres[(cluster + 1) % clusters].astype(np.float32)
        delta = jnp.asarray(moved[cluster])
        for _ in range(steps):
            delta = step(delta, values, target)
        moved[cluster] = np.asarray(delta)
    released = np.array(images)
    shifted = np.clip(pixels + moved[own], 0, 1)
    released[there] = from_pixels(shifted, levels)
    everybody = np.zeros(len(images), np.int64)
    everybody[there] = own
    data = batch._replace(inputs=released)
    return Perturbed(data, moved.astype(np.float64), everybody, centres)


def k_means(
    rows: Float[np.ndarray, "n f"], clusters: int, *, rounds: int = 100, seed: int = 0
) -> tuple[Float[np.ndarray, "k f"], Int[np.ndarray, " n"]]:
    """Centres and the nearest one of each row; no cluster is empty.

    Args:
        rows: What is clustered.
        clusters: At most as many as there are rows.
        rounds: Of Lloyd's algorithm, at most; it ends where nothing changes.
        seed: Draws the first centres, each with chance proportional to the squared
            distance from those before.

    Raises:
        ValueError: more clusters than rows.
    """
    if clusters > len(rows):
        raise ValueError(
            f"k_means got {clusters} clusters for {len(rows)} rows: lower clusters"
        )
    random = np.random.default_rng(seed)
    chosen = [int(random.integers(len(rows)))]
    while len(chosen) < clusters:
        far = _squared(rows, rows[chosen]).min(axis=1)
        far[chosen] = 0
        total = far.sum()
        left = np.setdiff1d(np.arange(len(rows)), chosen)
        chance = far / total if total > 0 else None
        drawn = random.choice(len(rows), p=chance) if total > 0 else left[0]
        chosen.append(int(drawn))
    centres, own = rows[chosen].copy(), np.full(len(rows), -1)
    for _ in range(rounds):
        gaps = _squared(rows, centres)
        nearest = gaps.argmin(axis=1)
        for empty in np.setdiff1d(np.arange(clusters), nearest):
            counts = np.bincount(nearest, minlength=clusters)
            able = np.where(counts[nearest] > 1, gaps.min(axis=1), -1)
            nearest[able.argmax()] = empty
        if np.array_equal(nearest, own):
            break
        own = nearest
        centres = np.stack([rows[own == k].mean(axis=0) for k in range(clusters)])
    return centres, own


def _squared(
    rows: Float[np.ndarray, "n f"], centres: Float[np.ndarray, "k _"]
) -> Float[np.ndarray, "n k"]:
    cross = rows @ centres.T
    squares = np.sum(rows**2, axis=1)[:, None] + np.sum(centres**2, axis=1)
    return np.maximum(squares - 2 * cross, 0)
