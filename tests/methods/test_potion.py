"""Potion against its published loop in numpy, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.methods import make_request
from unlearn_jax.methods.potion import label_agreement, potion

RHO, GROWTH, SIZE = 0.5, 5.0, 8


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


@pytest.fixture(scope="module")
def rows(train):
    """One class, which a net can be made to forget."""
    return np.flatnonzero(np.asarray(train.targets) == 1)


@pytest.fixture(scope="module")
def request_b(train, rows):
    return make_request(train, rows)


@pytest.fixture(scope="module")
def moved(learner, original, train, request_b):
    method = potion(learner, rho=RHO, growth=GROWTH, importance_batch=SIZE)

    @tiny.quick_jit
    def run(original, request):
        state = method.prepare(jax.random.key(0), original, train)
        return method.forget(jax.random.key(0), state, original, request)[0]

    return run(original, request_b)


def published(learner, original, train, rows):
    """Dampened by percentile, from the original each time, until labels are gone."""

    def norms(params):
        return jnp.linalg.norm(
            learner.model.apply(original._replace(params=params), train.inputs), axis=1
        )

    jacobian = tiny.quick_jit(jax.jacobian(norms))(original.params)
    slopes = np.concatenate(
        [np.reshape(j, (tiny.COUNT, -1)) for j in jax.tree.leaves(jacobian)], axis=1
    )

    def importance(chosen):
        parts = [chosen[i : i + SIZE] for i in range(0, len(chosen), SIZE)]
        return np.mean([np.abs(slopes[p].mean(axis=0)) for p in parts], axis=0)

    theta, unflatten = ravel_pytree(original.params)
    apply = tiny.quick_jit(learner.model.apply)

    def right(params):
        at = original._replace(params=unflatten(jnp.asarray(params)))
        guesses = np.argmax(apply(at, train.inputs[rows]), axis=1)
        return np.mean(guesses == train.targets[rows])

    theta = np.asarray(theta)
    ratio = importance(rows) / importance(np.arange(tiny.COUNT))
    share = len(rows) / tiny.COUNT / 25
    for tries in range(1, 200):
        percent = np.log(1 + 100 * share)
        chosen = ratio > np.percentile(ratio, 100 - percent)
        found = np.where(chosen, theta * np.minimum(1 / ratio, 1), theta)
        if right(found) <= RHO * right(theta):
            return found, chosen.sum(), tries
        share *= GROWTH
    raise AssertionError("nothing was forgotten")


def test_potion_is_its_published_loop(learner, original, train, rows, request_b, moved):
    expected, count, tries = published(learner, original, train, rows)
    assert tries > 3
    assert 0 < count < expected.size
    np.testing.assert_allclose(tiny.flat(moved.params), expected, rtol=1e-9)
    before, after = (
        label_agreement(learner, model, request_b.forget) for model in (original, moved)
    )
    assert 0 < after <= RHO * before


def test_agreement_counts_what_has_weight():
    learner = tiny.learner("softmax")
    data = jax.tree.map(jnp.asarray, tiny.examples(count=12))
    variables = learner.model.init(jax.random.key(0))
    weights = jnp.ones(12).at[:5].set(0)
    found = label_agreement(learner, variables, data._replace(weights=weights))
    guesses = np.argmax(data.inputs @ variables.params["kernel"], axis=-1)
    np.testing.assert_allclose(found, np.mean((guesses == data.targets)[5:]))
    nothing = data._replace(weights=jnp.zeros(12))
    assert label_agreement(learner, variables, nothing) == 0


def test_a_share_that_does_not_grow_is_refused(learner):
    with pytest.raises(ValueError, match="growth must be above 1"):
        potion(learner, growth=1.0)
