"""The U-Net: every image for itself, no maps to edit, a denoiser like any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.data.canvas import digit_canvas
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.sampler import generate
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.methods.editing.denoiser import text_maps
from unlearn_jax.models.unet import class_tokens, unet
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch, Variables

KEY = jax.random.key(8)
SCHEDULE = cosine_schedule(20)


def off_start(denoiser):
    """Parameters away from where they begin, at which the head is zero."""
    flat, back = ravel_pytree(denoiser.model.init(KEY).params)
    drawn = jax.random.normal(KEY, flat.shape, flat.dtype)
    return Variables(back(flat + 0.1 * drawn), {})


def test_its_fisher_is_that_of_single_images():
    denoiser = unet((4, 4, 1), 2, width=2, text_width=2, dtype=jnp.float64)
    schedule = SCHEDULE._replace(signal=SCHEDULE.signal.astype(jnp.float64))
    images = jax.random.uniform(KEY, (3, 4, 4, 1), jnp.float64, -1, 1)
    data = Batch(images, class_tokens(jnp.array([0, 1, 1]), 2), jnp.ones(3))
    batch = noised(schedule, data, draw(KEY, schedule, images))
    objective = diffusion_objective(denoiser)
    flat, back = ravel_pytree(off_start(denoiser).params)

    @tiny.quick_jit
    def both(flat):
        entries = empirical_fisher_diagonal(objective, back(flat), batch)

        def one(row):
            single = jax.tree.map(lambda leaf: leaf[None], row)
            slope = jax.grad(lambda x: objective.total(back(x), single))(flat)
            return slope**2

        return ravel_pytree(entries)[0], jnp.mean(jax.lax.map(one, batch), 0)

    found, expected = both(flat)
    assert np.asarray(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_the_class_is_read_and_has_no_maps_to_edit():
    denoiser = unet((4, 4, 1), 2, width=2, text_width=2)
    variables = off_start(denoiser)
    tokens = class_tokens(np.array([0, 1, 1]), 2)

    @tiny.quick_jit
    def drawn(v):
        return generate(KEY, denoiser, v, SCHEDULE, tokens, steps=3)

    images = np.asarray(drawn(variables))
    assert images.shape == (3, 4, 4, 1)
    image = jnp.zeros((2, 4, 4, 1))
    inputs = {"image": image, "time": jnp.array([5, 5]), "tokens": tokens[:2]}
    first, second = denoiser.model.apply(variables, inputs)
    assert jnp.abs(first - second).max() > 1e-5
    with pytest.raises(ValueError, match="no K and V maps"):
        text_maps(denoiser, variables)
    with pytest.raises(ValueError, match="even sides"):
        unet((5, 4, 1), 2)
    with pytest.raises(ValueError, match="at least 1 of each"):
        unet((4, 4, 0), 2)
    # Token -1 is the last class's, 0 the null prompt's, and 3 gives NaN.
    for label in (-1, -2, 2):
        with pytest.raises(ValueError, match=f"got class {label}"):
            class_tokens(np.array([0, label]), 2)
    for token in (-1, 3):
        with pytest.raises(ValueError, match=f"got token {token}, expected 0 .* to 2"):
            denoiser.encode(variables, np.array([[0], [token]]))
    np.testing.assert_array_equal(class_tokens([0, 2], 3), [[1], [3]])


def test_training_lowers_its_loss_on_digits():
    train = digit_canvas(styles=("plain",)).dataset.splits.train
    data = train._replace(targets=class_tokens(train.targets, 10))
    denoiser = unet((8, 8, 1), 10, width=8, text_width=8)
    recipe = Recipe(1, 32, 5e-3, "adam", weight_decay=0.0)

    @jax.jit
    def fit(key, data):
        return fit_denoiser(key, denoiser, SCHEDULE, data, recipe)

    _, loss = fit(KEY, data)
    assert float(loss) < 0.7  # noise has variance 1: what telling nothing costs
