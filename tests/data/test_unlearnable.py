"""Class-wise filters: what they do, that they hide a class, and their removal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import tiny

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.deconvolution import filter_from_pairs, unfiltered
from unlearn_jax.data.digits import digits
from unlearn_jax.data.unlearnable import (
    Levels,
    class_filters,
    convolved,
    filter_images,
    levels_of,
    to_pixels,
)
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe

CLASSES = 3


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    images = random.uniform(-1, 3, size=(30, 6, 5, 2)).astype(np.float32)
    weights = np.ones(30, np.float32)
    weights[[4, 20]] = 0
    images[4] = np.nan
    return from_arrays(images, np.arange(30) % CLASSES, weights)


def test_a_filter_has_one_entry_of_one_and_the_rest_below_the_bound():
    filters = class_filters(50, size=3, bound=0.3, seed=1)
    assert filters.shape == (50, 3, 3)
    assert (np.sum(filters == 1.0, axis=(1, 2)) == 1).all()
    others = filters[filters != 1.0]
    assert 0 <= others.min() < 0.02
    assert 0.28 < others.max() < 0.3
    places = filters.reshape(50, 9).argmax(axis=1)
    assert len(set(places)) == 9, "the entry 1 lies anywhere, as published"
    assert not np.array_equal(filters, class_filters(50, seed=2))


def test_filtering_is_scipys_correlation_image_by_image(batch):
    filters = class_filters(CLASSES)
    found = filter_images(batch, filters, steps=None)
    levels = levels_of(batch)
    there = np.flatnonzero(batch.weights)
    np.testing.assert_array_equal(found.indices, there)
    before, after = (to_pixels(b.inputs[there], levels) for b in (batch, found.data))
    for x, y, label in zip(before, after, batch.targets[there], strict=True):
        channels = [
            scipy.signal.correlate2d(x[..., c], filters[label], mode="same")
            for c in range(2)
        ]
        expected = np.stack(channels, axis=-1)
        np.testing.assert_allclose(y, expected / expected.max(), atol=1e-6)
    np.testing.assert_array_equal(found.data.targets, batch.targets)
    np.testing.assert_array_equal(found.data.inputs[4], batch.inputs[4])
    assert found.data.inputs.dtype == batch.inputs.dtype


def test_files_of_eight_bits_have_256_levels(batch):
    levels = levels_of(batch)
    there = np.flatnonzero(batch.weights)
    found = filter_images(batch, class_filters(CLASSES))
    steps = to_pixels(found.data.inputs[there], levels) * 255
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_a_share_leaves_the_other_images_as_they_were(batch):
    found = filter_images(batch, class_filters(CLASSES), share=0.5, seed=3)
    assert 5 < len(found.indices) < 23
    others = np.setdiff1d(np.flatnonzero(batch.weights), found.indices)
    np.testing.assert_array_equal(found.data.inputs[others], batch.inputs[others])
    changed = found.data.inputs[found.indices] != batch.inputs[found.indices]
    assert changed.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("size", [3, 5])
def test_one_pair_tells_the_filter(batch, size):
    filters = class_filters(CLASSES)
    found = filter_images(batch, filters, steps=None)
    levels = levels_of(batch)
    for label in range(CLASSES):
        own = np.flatnonzero((batch.targets == label) & (batch.weights > 0))[:1]
        pair = [to_pixels(b.inputs[own], levels) for b in (batch, found.data)]
        border = (size - 3) // 2
        expected = np.pad(filters[label], border)
        got = filter_from_pairs(*pair, size=size)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_unfiltered_solves_the_dense_normal_equations(batch):
    kernel = class_filters(1, seed=4)[0]
    images = np.random.default_rng(5).uniform(size=(2, 4, 3, 1))
    points = np.eye(12).reshape(12, 4, 3, 1)
    matrix = np.stack([convolved(one[None], kernel).ravel() for one in points], axis=1)
    stacked = np.concatenate([matrix, np.sqrt(0.1) * np.eye(12)])
    for image, got in zip(images, unfiltered(images, kernel, noise=0.1), strict=True):
        right = np.concatenate([image.ravel(), np.zeros(12)])
        solution = np.maximum(np.linalg.lstsq(stacked, right, rcond=None)[0], 0)
        expected = solution.reshape(4, 3, 1) / solution.max()
        np.testing.assert_allclose(got, expected, atol=1e-10)


def test_filters_hide_a_class_and_ten_pairs_bring_it_back():
    """Test accuracy of a net trained on clean, filtered and restored digits.

    98.9, 34.2 and 97.2 % (this test, printed with ``-s``).
    """
    train, test = digits().splits
    levels = levels_of(train)
    filters = class_filters(10, seed=1)
    hidden = filter_images(train, filters).data
    pixels, clean = (to_pixels(b.inputs, levels) for b in (hidden, train))
    restored = np.empty_like(pixels)
    for label in range(10):
        own = np.flatnonzero(train.targets == label)
        kernel = filter_from_pairs(clean[own[:10]], pixels[own[:10]], size=3)
        restored[own] = unfiltered(pixels[own], kernel)
    recipe = Recipe(epochs=20, batch_size=64, learning_rate=0.1)
    learner = Learner(MODELS["mlp"]((8, 8, 1), 10), cross_entropy, 0.0, recipe)
    run = tiny.full_jit(lambda data: fit(jax.random.key(0), learner, data))

    def accuracy(inputs):
        data = train._replace(inputs=jnp.asarray(inputs, jnp.float32))
        outputs = learner.model.apply(run(data), to_pixels(test.inputs, levels))
        return float(np.mean(outputs.argmax(1) == test.targets))

    found = {"clean": clean, "hidden": pixels, "restored": restored}
    found = {name: accuracy(inputs) for name, inputs in found.items()}
    print(found)
    assert found["clean"] > 0.96
    assert found["hidden"] < 0.6
    assert found["restored"] > 0.93


def test_what_has_no_filter_is_refused(batch):
    filters = class_filters(CLASSES)
    with pytest.raises(ValueError, match="an odd size and a positive bound"):
        class_filters(3, size=4)
    with pytest.raises(ValueError, match="2 filters and an image of class 2"):
        filter_images(batch, filters[:2])
    with pytest.raises(ValueError, match="share is 0"):
        filter_images(batch, filters, share=0.0)
    dark = Levels(np.zeros(2, np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="pixels that are not negative"):
        filter_images(batch, filters, levels=dark)
    flat = batch._replace(inputs=batch.inputs.reshape(30, -1))
    with pytest.raises(ValueError, match="expected images"):
        filter_images(flat, filters)
    grey = batch._replace(inputs=np.zeros_like(batch.inputs))
    with pytest.raises(ValueError, match="channel 0 has the value 0"):
        levels_of(grey)
    with pytest.raises(ValueError, match="the same images before and after"):
        filter_from_pairs(np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 1)), size=4)
    with pytest.raises(ValueError, match="noise is 0"):
        unfiltered(np.zeros((1, 4, 4, 1)), filters[0], noise=0.0)
