"""The contrastive pair: its loss by hand, and captions found for unseen images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.models.contrastive import contrastive
from unlearn_jax.train.contrast import contrast, fit_contrastive
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

RECIPE = Recipe(
    epochs=20, batch_size=8, learning_rate=1e-2, optimizer="adam", weight_decay=0.0
)


def drawn(count, seed):
    """Bright or dark pictures, and captions that say which in one of three words."""
    random = np.random.default_rng(seed)
    bright = np.arange(count) % 2
    images = np.where(bright, 1.0, -1.0)[:, None, None, None]
    images = images + 0.3 * random.normal(size=(count, 2, 2, 1))
    filler = random.integers(3, 6, count)
    tokens = np.stack([filler, 1 + bright, np.zeros(count, int)], 1)
    return Batch(images.astype(np.float32), tokens.astype(np.int32), np.ones(count))


def test_the_loss_is_the_formula_and_absent_examples_are_not_told_apart():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 4, 3))
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    kept = [0, 1, 3]
    near = 5 * one[kept] @ other[kept].T
    rows = np.log(np.exp(near).sum(1)) - np.diag(near)
    columns = np.log(np.exp(near).sum(0)) - np.diag(near)
    expected = np.average((rows + columns) / 2, weights=weights[kept])
    found = contrast(*map(jnp.asarray, (one, other, np.log(5.0), weights)))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_it_learns_which_captions_are_of_which_images():
    pair = contrastive((2, 2, 1), 6, tokens=3, width=8, widths=(16,))
    train, test = drawn(64, 0), drawn(20, 1)
    fitted = jax.jit(lambda d: fit_contrastive(jax.random.key(0), pair, d, RECIPE))
    variables, loss = fitted(train)
    assert float(loss) < np.log(8)
    texts = np.array([[3, 1, 0], [3, 2, 0]], np.int32)

    @tiny.quick_jit
    def nearest(v):
        return pair.pictured(v, test.inputs), pair.said(v, texts)

    images, said = nearest(variables)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    found = np.argmax(np.asarray(images) @ np.asarray(said).T, axis=1)
    np.testing.assert_array_equal(found, np.arange(20) % 2)


def test_it_says_what_it_cannot_learn_from():
    pair = contrastive((2, 2, 1), 6, tokens=3, width=8, widths=(16,))
    train = drawn(8, 0)
    images, tokens = train.inputs.copy(), train.targets.copy()
    images[2, 0, 1, 0], tokens[5, 1] = np.nan, 6
    refused = {
        "build the pair for these": train._replace(targets=tokens[:, :2]),
        "infinite inputs in 1 rows, the first is row 2": train._replace(inputs=images),
        "the first is 6 at example 5, token 1": train._replace(targets=tokens),
    }
    for words, data in refused.items():
        with pytest.raises(ValueError, match=words):
            fit_contrastive(jax.random.key(0), pair, data, RECIPE)
