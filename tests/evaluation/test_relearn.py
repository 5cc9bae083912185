"""Relearn time: how it counts, where it stops, what it leaves alone."""

import jax
import numpy as np
import pytest
import tiny

from unlearn_jax.data.batch import pad, take
from unlearn_jax.evaluation.relearn import (
    mean_height,
    relearn_steps,
    relearning_curve,
)
from unlearn_jax.train.objective import bind

MOST = 60


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp", learning_rate=0.5)


@pytest.fixture(scope="module")
def forget():
    return pad(take(tiny.examples(), [1, 2, 8, 13, 24, 33]), 8)


@pytest.fixture(scope="module")
def untrained(learner):
    return learner.model.init(jax.random.key(5))


@pytest.fixture(scope="module")
def start_loss(learner, untrained, forget):
    risk = bind(learner.model, {}, learner.loss).risk
    return float(tiny.quick_jit(risk)(untrained.params, forget))


@pytest.fixture(scope="module")
def steps(learner):
    @tiny.quick_jit
    def count(variables, forget, threshold):
        return relearn_steps(
            jax.random.key(0),
            learner,
            variables,
            forget,
            threshold,
            max_steps=MOST,
            batch_size=4,
        )

    return lambda *arguments: int(count(*arguments))


def test_nothing_to_relearn_under_the_threshold(steps, untrained, forget, start_loss):
    assert steps(untrained, forget, 1.001 * start_loss) == 0
    assert steps(untrained, forget, 0.999 * start_loss) > 0


def test_lower_thresholds_take_more_steps(steps, untrained, forget, start_loss):
    counts = [
        steps(untrained, forget, part * start_loss) for part in (1.1, 0.8, 0.6, 0.4)
    ]
    assert counts == sorted(counts)
    assert 0 == counts[0] < counts[1] < counts[2] < counts[3] < MOST


def test_what_is_never_reached_is_censored_at_max_steps(steps, untrained, forget):
    assert steps(untrained, forget, -1.0) == MOST


def test_a_broken_model_is_censored_too(steps, untrained, forget):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, untrained)
    assert steps(broken, forget, 1.0) == MOST


def test_inputs_are_left_alone(steps, untrained, forget, start_loss):
    before = jax.tree.map(np.array, (untrained, forget))
    first = steps(untrained, forget, 0.6 * start_loss)
    after = (untrained, forget)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)
    assert steps(untrained, forget, 0.6 * start_loss) == first


def test_padding_is_never_drawn(steps, untrained, forget, start_loss):
    # Real examples with another label: whoever draws them learns a contradiction.
    inputs, targets = forget.inputs.copy(), forget.targets.copy()
    inputs[6:], targets[6:] = inputs[:2], (targets[:2] + 1) % tiny.CLASSES
    confused = forget._replace(inputs=inputs, targets=targets)
    threshold = 0.2 * start_loss
    assert 0 < steps(untrained, forget, threshold) < MOST
    assert steps(untrained, confused, threshold) == steps(untrained, forget, threshold)
    drawn = confused._replace(weights=np.ones(8))
    assert steps(untrained, drawn, threshold) == MOST


def test_numpy_data_need_no_compilation_around_it(learner, untrained, forget):
    count = relearn_steps(
        jax.random.key(0), learner, untrained, forget, 0.0, max_steps=1
    )
    assert isinstance(forget.inputs, np.ndarray)
    assert int(count) == 1


def test_a_curve_watches_one_set_and_trains_on_another(learner, untrained, forget):
    sizes = {"points": 3, "every": 4, "batch_size": 4}

    @tiny.quick_jit
    def curves(variables, attack, probe):
        key = jax.random.key(2)
        given = key, learner, variables, attack
        fast, slow = (
            relearning_curve(*given, probe, learning_rate=rate, **sizes)
            for rate in (0.5, 1e-9)
        )
        return fast, slow, relearning_curve(*given, attack, **sizes)

    attack = pad(take(tiny.examples(), [3, 5, 9, 14]), 8)
    fast, slow, own = curves(untrained, attack, forget)
    risk = bind(learner.model, {}, learner.loss).risk
    start = float(tiny.quick_jit(risk)(untrained.params, forget))
    np.testing.assert_allclose(fast[0], start, rtol=1e-6)
    np.testing.assert_allclose(slow, start, rtol=1e-5)
    assert np.abs(np.diff(fast)).min() > 1e-4
    assert own[-1] < own[0]
    changed = attack._replace(weights=attack.weights * (np.arange(8) != 2))
    assert np.abs(curves(untrained, changed, forget)[0] - fast)[1:].max() > 1e-4
    hidden = attack._replace(inputs=np.where(attack.weights[:, None], attack.inputs, 9))
    np.testing.assert_array_equal(curves(untrained, hidden, forget)[0], fast)
    assert mean_height(np.array([4.0, 2.0, 0.0])) == 2
