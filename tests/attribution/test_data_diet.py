"""Data-diet scores: the written-out gradients, and what weights of zero hide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution.data_diet import el2n, grand
from unlearn_jax.train.loss import squared_error
from unlearn_jax.types import Batch

MODELS = 3


def drawn(learner, dtype=jnp.float64):
    """Models of several seeds, their batch statistics moved off the start."""
    keys = jax.random.split(jax.random.key(1), MODELS)
    models = jax.vmap(learner.model.init)(keys)
    step = jax.random.uniform(keys[0], (MODELS,), dtype)
    moved = jax.tree.map(lambda leaf: leaf + step[:, None], models.stats)
    return models._replace(stats=moved)


@pytest.fixture(scope="module")
def data():
    batch = tiny.examples(count=23)
    weights = np.linspace(0.5, 2.0, 23)
    weights[[4, 17]] = 0.0
    broken = np.array(batch.inputs)
    broken[[4, 17]] = np.nan
    return Batch(broken, batch.targets, weights)


def explicit(learner, models, data):
    """Norms of gradients by ``vmap(grad)``, one model and example at a time."""

    def one(variables, inputs, target):
        def loss(params):
            outputs = learner.model.apply(
                variables._replace(params=params), inputs[None]
            )
            return learner.loss(outputs, target[None])[0]

        return tree.norm(jax.grad(loss)(variables.params))

    over_examples = jax.vmap(one, in_axes=(None, 0, 0))
    norms = jax.vmap(over_examples, in_axes=(0, None, None))
    return norms(models, jnp.nan_to_num(data.inputs), jnp.asarray(data.targets)).mean(0)


def test_grand_is_the_mean_norm_of_written_out_gradients(data):
    learner = tiny.learner("norm", l2=0.3)
    models = drawn(learner)
    found = tiny.quick_jit(lambda m, d: grand(learner, m, d, batch_size=8))(
        models, data
    )
    expected = tiny.quick_jit(lambda m, d: explicit(learner, m, d))(models, data)
    expected = jnp.where(data.weights > 0, expected, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_el2n_is_the_distance_of_softmax_to_the_label(data):
    learner = tiny.learner("mlp")
    models = drawn(learner)
    found = tiny.quick_jit(lambda m, d: el2n(learner, m, d, batch_size=8))(models, data)
    outputs = jax.vmap(learner.model.apply, in_axes=(0, None))(
        models, jnp.nan_to_num(data.inputs)
    )
    labels = np.eye(tiny.CLASSES)[np.asarray(data.targets)]
    distance = np.linalg.norm(
        np.asarray(jax.nn.softmax(outputs)) - labels, axis=-1
    ).mean(0)
    np.testing.assert_allclose(found, np.where(data.weights > 0, distance, 0))
    assert np.max(found) <= np.sqrt(2)


def test_el2n_of_squared_error_is_the_residual(data):
    learner = tiny.learner("softmax", loss=squared_error)
    models = drawn(learner)
    targets = np.random.default_rng(2).normal(size=(23, tiny.CLASSES))
    batch = data._replace(targets=targets)
    found = tiny.quick_jit(lambda m, d: el2n(learner, m, d))(models, batch)
    kernels = np.asarray(models.params["kernel"])
    inputs = np.nan_to_num(data.inputs)
    residuals = np.einsum("nf,mfk->mnk", inputs, kernels) - targets
    expected = np.linalg.norm(residuals, axis=-1).mean(0)
    np.testing.assert_allclose(found, np.where(data.weights > 0, expected, 0))


def test_for_the_last_layer_alone_grand_is_el2n_times_the_input(data):
    # softmax regression: gradient = input x (softmax - onehot)
    learner = tiny.learner("softmax")
    models = drawn(learner)
    first, second = tiny.quick_jit(
        lambda m, d: (grand(learner, m, d), el2n(learner, m, d))
    )(models, data)
    lengths = np.linalg.norm(np.nan_to_num(data.inputs), axis=1)
    np.testing.assert_allclose(first, np.asarray(second) * lengths)


def test_float32_stays_and_an_example_is_scored_alone():
    learner = tiny.learner("softmax", jnp.float32)
    batch = tiny.examples(count=10)
    batch = batch._replace(inputs=batch.inputs.astype(np.float32))
    models = drawn(learner, jnp.float32)
    run = tiny.quick_jit(lambda m, d: grand(learner, m, d))
    found = run(models, batch)
    assert found.dtype == jnp.float32
    flipped = jax.tree.map(lambda leaf: leaf[::-1], batch)
    np.testing.assert_allclose(run(models, flipped)[::-1], found, rtol=1e-5)
