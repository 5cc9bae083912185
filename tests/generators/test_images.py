"""What no generator can be trained on is refused in one line, in each of its fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.generators.duel import Rates, duel, fit_adversarial
from unlearn_jax.generators.evidence import fit_variational
from unlearn_jax.generators.masks import fit_masked, random_masks
from unlearn_jax.methods.erasing.noise_codes import noise_codes
from unlearn_jax.methods.erasing.repulsion import adapt_then_unlearn
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.models.masked import masked_autoencoder
from unlearn_jax.models.variational import variational
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

KEY = jax.random.key(1)
SHAPE = (4, 6, 1)
RECIPE = Recipe(1, 4, 1e-2, "adam", weight_decay=0.0)
SMALL = {"width": 4, "codes": 2, "depth": 1, "heads": 2}


def pictures(images=None, labels=None, weights=None):
    if images is None:
        images = np.random.default_rng(0).uniform(-1, 1, (5, *SHAPE))
    labels = np.zeros(5, np.int32) if labels is None else labels
    return Batch(images, labels, np.ones(5) if weights is None else weights)


def fits():
    autoencoder = variational(SHAPE, 3, codes=1, widths=(3,))
    masked = masked_autoencoder(SHAPE, **SMALL)
    gan = adversarial(SHAPE, codes=2, widths=(3,))
    rates = Rates(steps=1, batch_size=2)
    own = gan.init(KEY)
    return {
        "variational": lambda data: fit_variational(KEY, autoencoder, data, RECIPE),
        "masked": lambda data: fit_masked(KEY, masked, data, RECIPE),
        "adversarial": lambda data: fit_adversarial(KEY, gan, data, rates),
        "duel": lambda data: duel(KEY, gan, own, data, rates),
        "repelled": lambda data: adapt_then_unlearn(KEY, gan, own, pictures(), data),
        "encoder": lambda data: noise_codes(
            KEY, masked, masked.model.init(KEY), pictures(), data
        ),
    }


def test_shapes_nan_and_no_example_are_refused_by_all():
    images = pictures().inputs
    broken = images.copy()
    broken[3, 0, 0] = np.nan
    for data, told in (
        (pictures(images.reshape(5, 6, 4, 1)), r"expected \(4, 6, 1\)"),
        (pictures(broken), "row 3"),
        (pictures(weights=np.zeros(5)), "no example"),
        (pictures(weights=-np.ones(5)), "negative"),
    ):
        for fit in fits().values():
            with pytest.raises(ValueError, match=told):
                fit(data)


def test_labels_and_pixels_of_an_autoencoder_are_within_their_range():
    fit = fits()["variational"]
    with pytest.raises(ValueError, match="expected 0 to 2"):
        fit(pictures(labels=np.array([0, 1, 2, 3, 0], np.int32)))
    with pytest.raises(ValueError, match="-1 to 1"):
        fit(pictures(pictures().inputs * 100))
    # What has no weight may hold anything.
    images, labels = pictures().inputs * 1.0, np.array([0, 1, 2, 0, 9], np.int32)
    images[4] = np.nan
    data = pictures(images, labels, np.array([1.0, 1, 1, 1, 0]))
    found, loss = tiny.quick_jit(lambda data: fit(data))(data)
    leaves = [loss, *jax.tree.leaves(found)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_generators_of_no_pixel_are_refused():
    for make in (lambda s: variational(s, 3), adversarial, masked_autoencoder):
        with pytest.raises(ValueError, match=r"expected|at least 1"):
            make((4, 0, 1))


def test_a_batch_of_none_is_refused():
    gan = adversarial(SHAPE, codes=2, widths=(3,))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        fit_adversarial(KEY, gan, pictures(), Rates(steps=1, batch_size=0))


def test_the_loss_is_a_mean_over_hidden_pixels_whatever_is_rounded():
    """Two of six patches, where a share of 0.4 is rounded."""
    autoencoder = masked_autoencoder(SHAPE, **SMALL, dtype=jnp.float64)
    assert not np.asarray(random_masks(KEY, autoencoder, 9, share=0.4)).all(1).any()
    hidden = 6 - np.asarray(random_masks(KEY, autoencoder, 9, share=0.4)).sum(1)
    np.testing.assert_array_equal(hidden, 2)
    still = Recipe(1, 1, 1e-30, "adam", weight_decay=0.0)
    data = pictures(np.full((5, *SHAPE), 0.5))

    @tiny.quick_jit
    def both(data):
        variables, loss = fit_masked(KEY, autoencoder, data, still, share=0.4)
        masks = random_masks(KEY, autoencoder, 400, share=0.4)
        images = jnp.full((400, *SHAPE), 0.5)
        inputs = {"image": images, "seen": masks}
        made = autoencoder.model.apply(variables, inputs).reshape(images.shape)
        gap = (made - images) ** 2
        return loss, jnp.sum(gap) / (400 * 8)

    ours, expected = both(data)
    np.testing.assert_allclose(ours, expected, rtol=0.05)
