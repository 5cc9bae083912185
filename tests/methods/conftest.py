"""Trained originals and requests, made once for all methods."""

import jax
import pytest
import tiny

from unlearn_jax.methods import make_request
from unlearn_jax.train.fit import fit


@pytest.fixture(scope="session")
def train():
    return tiny.examples()


@pytest.fixture(scope="session")
def request_a(train):
    return make_request(train, [0, 4, 9, 20, 31, 46])


@pytest.fixture(scope="session")
def originals(train):
    """Per net: two models trained on everything, stacked."""
    keys = jax.random.split(jax.random.key(7), 2)

    def trained(net):
        learner = tiny.learner(net)
        return tiny.quick_jit(
            jax.vmap(lambda key, data: fit(key, learner, data), (0, None))
        )(keys, train)

    return {net: trained(net) for net in ("mlp", "norm")}
