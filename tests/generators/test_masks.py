"""A masked autoencoder: what is hidden is not read; its loss is exact given masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.data.canvas import digit_canvas, half_masked
from unlearn_jax.generators.masks import (
    fit_masked,
    hidden,
    left_half,
    masked_objective,
    random_masks,
)
from unlearn_jax.models.masked import masked_autoencoder
from unlearn_jax.models.patches import cut, joined_up
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

KEY = jax.random.key(4)
SHAPE = (4, 4, 1)


def small(**options):
    sizes = {"width": 8, "codes": 3, "depth": 1, "heads": 2}
    return masked_autoencoder(SHAPE, **{**sizes, "dtype": jnp.float64, **options})


def pictures(count):
    drawn = np.random.default_rng(0).uniform(-1, 1, (count, *SHAPE))
    return Batch(jnp.asarray(drawn), jnp.zeros(count), jnp.ones(count))


def test_patches_are_squares_of_pixels_and_come_back():
    image = np.arange(2 * 4 * 6 * 2).reshape(2, 4, 6, 2).astype(float)
    rows = cut(jnp.asarray(image), 2)
    np.testing.assert_array_equal(rows[1, 4], image[1, 2:4, 2:4].ravel())
    back = joined_up(rows, (4, 6, 2), 2)
    np.testing.assert_array_equal(back, image.reshape(2, -1))


def test_hidden_pixels_are_not_read_and_seen_ones_are_what_they_were():
    autoencoder = small()
    data = pictures(3)
    seen = left_half(autoencoder, 3)
    # The same half as the data know it, by another road.
    _, shown = half_masked(data.inputs)
    flat = joined_up(jnp.repeat(seen[:, :, None], 4, axis=2), SHAPE, 2)
    np.testing.assert_array_equal(flat[0], shown.ravel())
    variables = autoencoder.model.init(KEY)
    other = data._replace(inputs=jnp.where(shown[None, :, :, None], data.inputs, 7.0))

    @tiny.quick_jit
    def completed(images):
        batch = hidden(autoencoder, data._replace(inputs=images), seen)
        return autoencoder.model.apply(variables, batch.inputs)

    ours, theirs = completed(data.inputs), completed(other.inputs)
    np.testing.assert_array_equal(ours, theirs)
    kept = np.asarray(data.inputs).reshape(3, -1)
    np.testing.assert_array_equal(
        np.asarray(ours)[:, shown.ravel()], kept[:, shown.ravel()]
    )
    assert np.abs(np.asarray(ours) - kept)[:, ~shown.ravel()].min() > 0


def test_its_fisher_is_that_of_dense_gradients():
    autoencoder = small()
    batch = hidden(autoencoder, pictures(3), random_masks(KEY, autoencoder, 3))
    objective = masked_objective(autoencoder)
    flat, back = ravel_pytree(autoencoder.model.init(KEY).params)

    @tiny.quick_jit
    def both(flat):
        entries = empirical_fisher_diagonal(objective, back(flat), batch)
        each = jax.jacrev(lambda x: objective.example_losses(back(x), batch))(flat)
        return ravel_pytree(entries)[0], jnp.mean(each**2, 0)

    found, expected = both(flat)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_masks_hide_so_many_and_a_share_that_hides_nothing_is_refused():
    autoencoder = small()
    seen = np.asarray(random_masks(KEY, autoencoder, 50, share=0.75))
    assert np.all(seen.sum(1) == 1)
    assert np.all(seen.any(0))
    with pytest.raises(ValueError, match="hides some"):
        random_masks(KEY, autoencoder, 1, share=0.01)
    with pytest.raises(ValueError, match="multiples"):
        masked_autoencoder((5, 4, 1))
    with pytest.raises(ValueError, match="width 0"):
        small(width=0)


def test_it_learns_more_of_digits_than_can_be_told_without_looking():
    train = digit_canvas(styles=("plain",)).dataset.splits.train
    autoencoder = masked_autoencoder((8, 8, 1), width=16, codes=8, depth=1, heads=2)
    recipe = Recipe(6, 32, 1e-2, "adam", weight_decay=0.0)
    fit = jax.jit(lambda key, data: fit_masked(key, autoencoder, data, recipe))
    _, loss = fit(KEY, train)
    images = np.asarray(train.inputs)
    # Each pixel's mean over all digits, over all that are hidden alike.
    assert float(loss) < np.mean((images - images.mean(0)) ** 2)
