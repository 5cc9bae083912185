"""Unrolled removal on digits: goals against retraining, and requests in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.attribution.trace import fit_traced, left_out, losses_of
from unlearn_jax.data import DATASETS
from unlearn_jax.methods import make_request
from unlearn_jax.methods.unrolled_removal import unrolled_removal
from unlearn_jax.models import mlp
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe


@pytest.mark.slow
@pytest.mark.optimised
def test_goals_of_forget_sets_follow_nets_trained_without_them():
    """Digits, a tenth: the set's own loss tells more than what is left out does."""
    data = jax.tree.map(jnp.asarray, DATASETS["digits"].load(None).splits.train)
    model = mlp((8, 8, 1), 10, widths=(64, 64))
    learner = Learner(model, cross_entropy, 0.0, Recipe(30, 64, 0.1))
    train = jax.jit(lambda key, data: fit(key, learner, data))
    without = jax.jit(lambda key, data: left_out(key, learner, data))
    every = jax.jit(lambda at, data: losses_of(learner, at, data))
    sets = [
        np.random.default_rng(s).permutation(len(data.targets))[:144] for s in range(8)
    ]
    true = np.array(
        [
            np.mean(
                [
                    every(
                        train(jax.random.key(700 + i), make_request(data, s).retain),
                        data,
                    )[s]
                    for i in range(4)
                ]
            )
            for s in sets
        ]
    )
    wrong = []
    for seed in range(5):
        other, out = without(jax.random.key(800 + seed), data)
        own = np.asarray(every(train(jax.random.key(900 + seed), data), data))
        held, known = (
            np.average(losses, weights=out.weights)
            for losses in (every(other, data), own)
        )
        goals = np.array([own[s].mean() * held / known for s in sets])
        wrong.append([goals - true, held - true])
    own, general = np.sqrt(np.mean(np.square(wrong), axis=(0, 2)))
    assert own < 0.85 * general


@pytest.mark.slow
@pytest.mark.optimised
def test_twenty_requests_in_a_row_do_not_drift():
    """Digits: KL from nets trained without all of them, on what was forgotten."""
    data = jax.tree.map(jnp.asarray, DATASETS["digits"].load(None).splits.train)
    model = mlp((8, 8, 1), 10, widths=(64, 64))
    learner = Learner(model, cross_entropy, 0.0, Recipe(30, 64, 0.1))
    method = unrolled_removal(learner)
    order = np.random.default_rng(0).permutation(len(data.targets))[:140]
    gone = make_request(data, order)
    asked = gone.forget.inputs[:140]
    start = jax.jit(lambda key, data: fit_traced(key, learner, data))
    train = jax.jit(lambda key, data: fit(key, learner, data))
    forget = jax.jit(method.forget)

    def logp(variables):
        return jax.nn.log_softmax(model.apply(variables, asked))

    oracles = [logp(train(jax.random.key(900 + i), gone.retain)) for i in range(5)]

    def distance(variables):
        own = logp(variables)
        each = [jnp.mean(jnp.sum(jnp.exp(o) * (o - own), axis=1)) for o in oracles]
        return float(np.mean(each))

    distances = []
    for seed in range(3):
        key = jax.random.key(seed)
        original, trace = start(key, data)
        state = method.prepare(key, original, data, trace)
        once, _ = forget(key, state, original, gone)
        at, left = original, data
        for number, few in enumerate(order.reshape(20, 7)):
            request = make_request(left, few)
            left = request.retain
            at, state = forget(jax.random.fold_in(key, number), state, at, request)
        distances.append([distance(v) for v in (original, once, at)])
    untouched, at_once, in_a_row = np.mean(distances, axis=0)
    assert at_once < 0.85 * untouched
    assert in_a_row < 1.2 * at_once
