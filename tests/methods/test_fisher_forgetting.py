"""Fisher forgetting: the Fisher by hand, the variances, the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import fisher_diagonal
from unlearn_jax.methods.fisher_forgetting import (
    batch_label_moment,
    fisher_forgetting,
    noise_variance,
)
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


@pytest.fixture(scope="module")
def by_label(learner, original, train):
    """(chances (n, k), per-example gradients at every label (k, n, ...))."""
    objective = bind(learner.model, {}, learner.loss)

    def losses(params, label):
        targets = jnp.full(len(train.targets), label, jnp.int32)
        return objective.loss(objective.predict(params, train.inputs), targets)

    jacobian = tiny.quick_jit(jax.jacobian(losses))
    slopes = [jacobian(original.params, k) for k in range(tiny.CLASSES)]
    chances = jax.nn.softmax(learner.model.apply(original, train.inputs))
    return np.asarray(chances), tree.stack(slopes)


@pytest.mark.parametrize("mean", [False, True])
def test_the_fisher_equals_explicit_gradients(
    learner, original, request_a, by_label, mean
):
    chances, slopes = by_label
    kept = np.asarray(request_a.retain.weights) > 0
    objective = bind(learner.model, {}, learner.loss, 0.3)  # l2 is no part of it
    if mean:
        found = tiny.quick_jit(
            lambda p: batch_label_moment(
                objective, p, request_a.retain, batch_size=tiny.COUNT
            )
        )(original.params)
    else:
        found = tiny.quick_jit(
            lambda p: fisher_diagonal(objective, p, request_a.retain)
        )(original.params)

    def expected(leaf):
        leaf = np.asarray(leaf)[:, kept]
        if mean:
            return np.einsum("k,k...->...", chances[kept].mean(0), leaf.mean(1) ** 2)
        return np.einsum("nk,kn...->...", chances[kept], leaf**2) / kept.sum()

    assert_trees_close(found, jax.tree.map(expected, slopes), rtol=1e-9, atol=1e-16)


def test_the_variance_is_that_of_the_released_code():
    classes = 4
    # (inputs, outputs) kernel: inverse, clamped at 1e3, mean over inputs.
    kernel = jnp.array([[1.0, 1e-9], [0.5, 1e-2]])
    np.testing.assert_allclose(
        noise_variance(kernel, classes), [[1.5, 550.0]] * 2, rtol=1e-6
    )
    # Biases and norms: ten times; the classifier: clamped at 1e2, ten times.
    np.testing.assert_allclose(noise_variance(jnp.array([0.1]), classes), [100.0],
                               rtol=1e-6)  # fmt: skip
    head = noise_variance(jnp.zeros((3, classes)), classes)
    np.testing.assert_allclose(head, np.full((3, classes), 1e3))


def test_no_class_is_wiped_out_by_its_size(learner, original, request_a):
    # The released code zeroes the last class where as many are forgotten as it holds.
    moved = tiny.quick_jit(fisher_forgetting(learner, alpha=1e-12).forget)(
        jax.random.key(0), (), original, request_a
    )[0]
    assert_trees_close(moved, original, atol=1e-2, rtol=0)


def test_the_noise_has_the_variance_that_was_computed(learner, original, request_a):
    alpha, draws = 1e-4, 400
    method = fisher_forgetting(learner, alpha=alpha)
    keys = jax.random.split(jax.random.key(1), draws)
    many = tiny.quick_jit(
        jax.vmap(lambda k, v: method.forget(k, (), v, request_a)[0].params, (0, None))
    )(keys, original)
    objective = bind(learner.model, {}, learner.loss)
    fisher = fisher_diagonal(objective, original.params, request_a.retain)
    for drawn, start, f in zip(
        *map(jax.tree.leaves, (many, original.params, fisher)), strict=True
    ):
        spread = np.sqrt(alpha * noise_variance(f, tiny.CLASSES))
        score = (np.asarray(drawn) - np.asarray(start)) / spread
        assert abs(np.mean(score)) < 4 / np.sqrt(score.size)
        assert abs(np.var(score) - 1) < 4 * np.sqrt(2 / score.size)


def test_impossible_settings_are_refused(learner):
    with pytest.raises(ValueError, match="fisher 'exact' is unknown; choose from exam"):
        fisher_forgetting(learner, fisher="exact")
    with pytest.raises(ValueError, match="alpha and fisher_batch must be positive"):
        fisher_forgetting(learner, alpha=0.0)
