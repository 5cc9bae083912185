"""Image-to-image forgetting: what is forgotten gets the codes of noise.

The encoder of a masked autoencoder moves, the decoder stays: ‖E_θ(x) − E(x)‖² on images
to keep and α ‖E_θ(x) − μ‖² on images to forget, μ the mean code of noise. By Adam, as
published; by few second-order steps; and in closed form where the last map alone moves.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from unlearn_jax.data.accumulate import mass
from unlearn_jax.generators.images import check_images
from unlearn_jax.generators.masks import random_masks
from unlearn_jax.methods.editing.rows import edit_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.erasing.curvature import as_drawn, curvature
from unlearn_jax.methods.erasing.newton import Solve, check_solve, newton_steps
from unlearn_jax.methods.erasing.tune import picked, slope_of, tune
from unlearn_jax.models.masked import Masked
from unlearn_jax.options import checked
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

_NOISES = 256
"""Images of noise that a code's mean is over, where it is asked for once."""

SOLVE = Solve(weight=5.0, steps=5, products=5, points=128, kept=1000)


@checked()
def noise_codes(
    key: PRNGKey,
    autoencoder: Masked,
    variables: Variables,
    forget: Batch,
    retain: Batch,
    *,
    strength: float = 0.2,
    steps: int = 300,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
) -> Variables:
    """Adam on the encoder, each step under masks of its own, as published.

    Args:
        key: Draws images, masks and noise.
        autoencoder: Whose encoder moves.
        variables: Of the original, whose codes others keep.
        forget: Images as inputs; targets are not read.
        retain: Images to keep, or a proxy of them.
        strength: α.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Images of either kind, and of noise, in a step.

    Raises:
        ValueError: images of another shape; NaN, or none to keep (these not while being
            traced).

    Cost: two gradients and two predictions for each image of a step.
    Source: Li et al., Machine Unlearning for Image-to-Image Generative Models, 2024,
        arXiv 2402.00351. Differs: each term is a mean over its own images (released:
        twice a sum over the whole batch, so that its share of forgotten ones moves α);
        the target is the mean code of the step's noise at each patch, which has the
        same minimiser as codes drawn one by one.
    """
    _check(autoencoder, forget, retain)
    objective = codes_objective(autoencoder)

    def loss(key: Any, params: Any, given: Any) -> Any:
        original, forget, retain = given
        keys = jax.random.split(key, 4)
        kept, own = (
            seen_of(keys[2], autoencoder, original, picked(k, data, batch_size))
            for k, data in zip(keys[:2], (retain, forget), strict=True)
        )
        mean = mean_noise(keys[3], autoencoder, original, retain, own.inputs["seen"])
        own = own._replace(targets=jnp.where(shown(own), mean, 0))
        total = objective.risk(params["encoder"], kept)
        return total + strength * objective.risk(params["encoder"], own)

    moves = {
        name: jax.tree.map(lambda leaf, own=name == "encoder": own, part)
        for name, part in variables.params.items()
    }
    moved = tune(
        key,
        variables.params,
        slope_of(loss),
        (variables, forget, retain),
        moves=moves,
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


@checked()
def noise_codes_closed(
    key: PRNGKey,
    autoencoder: Masked,
    variables: Variables,
    forget: Batch,
    retain: Batch,
    *,
    strength: float = 0.2,
    l2: float = 1e-3,
) -> Variables:
    """The same objective in the encoder's last map alone: one least-squares solve.

    Forgotten patches get the mean code of noise at their place, as there.

    Args:
        key: Draws one mask for each image, and noise.
        autoencoder: Whose last map of the encoder is edited.
        variables: As of :func:`noise_codes`.
        forget: As there.
        retain: As there.
        strength: α.
        l2: λ of ‖W − W₀‖², beside means over patches of squared distances.

    Raises:
        ValueError: as :func:`noise_codes`; an l2 that is not positive.

    Cost: one forward pass of all images, and a solve of d × d.
    Source: as :func:`noise_codes`; of a map with one mean for all places see
        ``editing.image_to_image``.
    """
    _check(autoencoder, forget, retain)
    first, second, third, fourth = jax.random.split(key, 4)
    last = variables.params["encoder"]["head"]["kernel"]
    kept, _, there = _rows(first, autoencoder, variables, retain)
    own, places, lost = _rows(second, autoencoder, variables, forget)
    noises = random_masks(fourth, autoencoder, _NOISES)
    mean = mean_noise(third, autoencoder, variables, retain, noises)
    aims = mean.reshape(autoencoder.patches, -1)[places]
    rows = join_rows(
        preserve_rows(last, kept, there),
        edit_rows(last, own, aims, strength * lost),
    )
    edited = edit(last, rows, l2=l2)
    head = {**variables.params["encoder"]["head"], "kernel": edited}
    encoder = {**variables.params["encoder"], "head": head}
    return variables._replace(params={**variables.params, "encoder": encoder})


@checked()
def noise_codes_newton(
    key: PRNGKey,
    autoencoder: Masked,
    variables: Variables,
    forget: Batch,
    retain: Batch,
    *,
    solve: Solve = SOLVE,
) -> Variables:
    """The whole encoder by few Gauss-Newton steps; the Fisher of codes holds the rest.

    Args:
        key: Draws images, masks and noise.
        autoencoder: Whose encoder moves.
        variables: As of :func:`noise_codes`.
        forget: As there.
        retain: As there.
        solve: Its steps; λ where Adam has 1 / α, and F of retained images.

    Raises:
        ValueError: as ``newton.check_solve`` and :func:`noise_codes`.
    """
    check_solve(solve)
    _check(autoencoder, forget, retain)
    objective = codes_objective(autoencoder)
    first, second, third, fourth, last = jax.random.split(key, 5)
    params = variables.params["encoder"]
    stay = picked(first, retain, solve.kept)
    stay = seen_of(second, autoencoder, variables, stay)
    drawn = as_drawn(second, stay)
    drawn = drawn._replace(targets=jnp.where(shown(stay), drawn.targets, 0))
    matrix = curvature(solve.kind, objective, params, drawn)
    own = picked(third, forget, 4 * solve.points)
    own = seen_of(fourth, autoencoder, variables, own)
    mean = mean_noise(fourth, autoencoder, variables, retain, own.inputs["seen"])
    own = own._replace(targets=jnp.where(shown(own), mean, 0))
    moved = newton_steps(last, objective, params, own, matrix, solve)
    return variables._replace(params={**variables.params, "encoder": moved})


def codes_objective(autoencoder: Masked) -> Objective:
    """½ ‖codes of seen patches − targets‖², a function of the encoder alone."""

    def predict(params: Params, inputs: Any) -> Array:
        codes = autoencoder.encode(Variables({"encoder": params}, {}), inputs)
        told = jnp.where(inputs["seen"][:, :, None], codes, 0)
        return told.reshape(len(told), -1)

    return Objective(predict, squared_error)


def seen_of(
    key: PRNGKey, autoencoder: Masked, variables: Variables, data: Batch
) -> Batch:
    """Images under masks drawn for them, and the codes that a model has for these."""
    images = jnp.asarray(data.inputs)
    seen = random_masks(key, autoencoder, len(images))
    inputs = {"image": images, "seen": seen}
    told = codes_objective(autoencoder).predict(variables.params["encoder"], inputs)
    return Batch(inputs, jax.lax.stop_gradient(told), data.weights)


def shown(data: Batch) -> Bool[Array, "n o"]:
    """Which of the flat codes are of seen patches."""
    seen = data.inputs["seen"]
    each = data.targets.shape[1] // seen.shape[1]
    return jnp.repeat(seen, each, axis=1)


def noise_like(
    key: PRNGKey, autoencoder: Masked, data: Batch, count: int
) -> Float[Array, "n h w c"]:
    """Normal noise with the mean and spread of the images' pixels, within ± 1."""
    images = jnp.asarray(data.inputs)
    there = (jnp.asarray(data.weights) > 0)[:, None, None, None]
    shape = (count, *autoencoder.image_shape)
    mean, size = jnp.mean(images, where=there), jnp.std(images, where=there)
    noise = jax.random.normal(key, shape, images.dtype)
    return jnp.clip(mean + size * noise, -1, 1)


def mean_noise(
    key: PRNGKey,
    autoencoder: Masked,
    variables: Variables,
    retain: Batch,
    seen: Bool[Array, "n p"],
) -> Float[Array, "1 o"]:
    """The mean code of noise at each patch, over those images that it is seen in."""
    noise = noise_like(key, autoencoder, retain, len(seen))
    codes = autoencoder.encode(variables, {"image": noise, "seen": seen})
    told = seen[:, :, None]
    total = jnp.sum(jnp.where(told, codes, 0), axis=0)
    mean = total / jnp.maximum(jnp.sum(told, axis=0), 1)
    return jax.lax.stop_gradient(mean.reshape(1, -1))


def _rows(
    key: PRNGKey, autoencoder: Masked, variables: Variables, data: Batch
) -> tuple[Float[Array, "r d"], Int[Array, " r"], Float[Array, " r"]]:
    """What the last map reads of seen patches, which patch, and its share of the mean.

    Half of each image's patches are seen; those of an image without weight have none.
    """
    images, weights = jnp.asarray(data.inputs), jnp.asarray(data.weights)
    there = weights > 0
    # What is absent is masked before anything reads it.
    images = jnp.where(there[:, None, None, None], images, 0)
    seen = random_masks(key, autoencoder, len(images))
    inner = autoencoder.inner(variables, {"image": images, "seen": seen})
    count = seen.shape[1] - round(0.5 * seen.shape[1])
    places = jnp.argsort(~seen, axis=1)[:, :count]
    found = jnp.take_along_axis(inner, places[:, :, None], axis=1)
    shares = jnp.where(there, weights, 0) / (count * mass(weights))
    shares = jnp.repeat(shares, count)
    return found.reshape(-1, inner.shape[-1]), places.reshape(-1), shares


def _check(autoencoder: Masked, forget: Batch, retain: Batch) -> None:
    """Whatever is to be forgotten, images to keep say what noise is like."""
    shape = autoencoder.image_shape
    check_images(shape, forget, name="forget set", empty=True)
    check_images(shape, retain, name="retain set")
