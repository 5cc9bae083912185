"""Trained originals and requests, made once for all methods."""

import functools

import jax
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution.trace import fit_traced
from unlearn_jax.methods import make_request
from unlearn_jax.train.fit import fit

FORGOTTEN = (0, 4, 9, 20, 31, 46)


@pytest.fixture(scope="session")
def train():
    return tiny.examples()


@pytest.fixture(scope="session")
def request_a(train):
    return make_request(train, FORGOTTEN)


@pytest.fixture(scope="session")
def originals(train):
    """Net -> two models trained on everything, stacked."""
    keys = jax.random.split(jax.random.key(7), 2)

    @functools.cache
    def trained(net):
        learner = tiny.learner(net)
        run = jax.vmap(lambda key, data: fit(key, learner, data), (0, None))
        return tiny.quick_jit(run)(keys, train)

    return trained


@pytest.fixture(scope="session")
def traces(train):
    """Net -> traces of the runs that gave these two models, stacked."""
    keys = jax.random.split(jax.random.key(7), 2)
    unseen = tiny.examples(count=20, seed=5)

    @functools.cache
    def left(net):
        learner = tiny.learner(net)
        options = {"points": 2, "segments": 1, "held_out": unseen}
        run = jax.vmap(lambda k, d: fit_traced(k, learner, d, **options), (0, None))
        return tiny.quick_jit(run)(keys, train)[1]

    return left


@pytest.fixture(scope="session")
def original(originals):
    """One mlp trained on everything."""
    return tree.member(originals("mlp"), 0)
