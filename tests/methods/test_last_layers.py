"""Last layers: trained as a softmax regression on what the frozen ones give."""

import jax
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.last_layers import finetune_last, retrain_last
from unlearn_jax.methods.retrain import retrain
from unlearn_jax.train.fit import start_fit

KEY = jax.random.key(3)
WHOLE = tiny.COUNT  # one batch


def run(method, original, request):
    return tiny.quick_jit(method.forget)(KEY, (), original, request)[0]


@pytest.fixture(scope="module")
def short(originals):
    return tree.member(originals("short"), 0)


def regression(features, batch, head, *, rates, decay):
    """Softmax regression by full-batch descent with momentum 0.9, in numpy."""
    rows = np.asarray(batch.weights) > 0
    x, y = np.asarray(features)[rows], np.eye(tiny.CLASSES)[batch.targets[rows]]
    theta = {name: np.array(value) for name, value in head.items()}
    speed = {name: np.zeros_like(value) for name, value in theta.items()}
    for rate in rates:
        odds = np.exp(x @ theta["kernel"] + theta["bias"])
        miss = (odds / odds.sum(1, keepdims=True) - y) / len(x)
        slopes = {"kernel": x.T @ miss, "bias": miss.sum(0)}
        for name, slope in slopes.items():
            speed[name] = 0.9 * speed[name] + slope + decay * theta[name]
            theta[name] = theta[name] - rate * speed[name]
    return theta


def others(variables):
    """All that is frozen when the head alone is trained."""
    first = {name: v for name, v in variables.params.items() if name != "head"}
    return first, variables.stats


def test_finetune_last_is_softmax_regression_on_frozen_features(short, request_a):
    learner = tiny.learner("short", weight_decay=0.1)
    options = {"epochs": 3, "learning_rate": 0.5, "batch_size": WHOLE}
    moved = run(finetune_last(learner, **options), short, request_a)
    retain = request_a.retain
    features = learner.model.features(short, retain.inputs)
    head = short.params["head"]
    expected = regression(features, retain, head, rates=[0.5] * 3, decay=0.1)
    assert_trees_close(moved.params["head"], expected, rtol=1e-9)
    assert_trees_close(others(moved), others(short), rtol=0)


def test_retrain_last_starts_anew_and_repeats_the_recipe(short, request_a):
    learner = tiny.learner("short", epochs=4, batch_size=WHOLE, weight_decay=0.1)
    moved = run(retrain_last(learner), short, request_a)
    retain = request_a.retain
    features = learner.model.features(short, retain.inputs)
    head = start_fit(KEY, learner).train.variables.params["head"]
    rates = 0.1 * 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    expected = regression(features, retain, head, rates=rates, decay=0.1)
    assert_trees_close(moved.params["head"], expected, rtol=1e-5)  # float32 schedule
    assert_trees_close(others(moved), others(short), rtol=0)


def test_all_layers_anew_are_the_oracle(original, request_a):
    learner = tiny.learner("mlp", epochs=2, weight_decay=0.1)
    anew = run(retrain_last(learner, layers=2), original, request_a)
    assert_trees_close(anew, run(retrain(learner), original, request_a), rtol=1e-12)


@pytest.mark.parametrize("factory", [finetune_last, retrain_last])
def test_batch_statistics_move_in_trained_layers_alone(factory, originals, request_a):
    original = tree.member(originals("norm"), 0)
    method = factory(tiny.learner("norm", epochs=1), layers=2)
    moved = run(method, original, request_a)
    frozen, trained = (
        [(v.params["stages"][i], v.stats["stages"][i]) for v in (moved, original)]
        for i in (0, 1)
    )
    assert_trees_close(*frozen, rtol=0)
    pairs = zip(*map(jax.tree.leaves, trained), strict=True)
    assert not any(np.array_equal(new, old) for new, old in pairs)


@pytest.mark.parametrize("factory", [finetune_last, retrain_last])
def test_more_layers_than_there_are_are_refused(factory, short, request_a):
    method = factory(tiny.learner("short"), layers=4)
    with pytest.raises(ValueError, match=r"layers must be at most 3, .* got 4: lower"):
        method.forget(KEY, (), short, request_a)
