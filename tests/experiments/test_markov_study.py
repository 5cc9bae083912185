"""The study of Markov chains: its distances, its choice, and what everybody spends."""

import numpy as np
import pytest

from experiments import markov
from experiments.markov.config import presets
from experiments.markov.contenders import CONTENDERS, SHOWN, Costs, settings
from experiments.markov.measure import chosen, divergences, kl
from unlearn_jax.data.markov import true_log_probabilities
from unlearn_jax.methods import METHODS

COSTS = Costs(forget=400, retain=800, passes=10)


def test_divergences_are_zero_at_the_truth_and_known_for_two_coins():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.8, 0.1, 0.1])
    with np.errstate(divide="ignore"):
        found = kl(np.log(p)[None], np.log(q)[None])
    assert found == pytest.approx(0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(5))
    setting = markov.measure.build(presets("any")["smoke"])
    test = setting.dataset.splits.test
    sources = np.asarray(setting.dataset.test_subclasses)
    truth = true_log_probabilities(setting.chains, np.asarray(test.inputs), sources)
    truth = np.maximum(truth, -700)[None]
    rows = list(divergences(setting, "perfect", truth, truth))
    assert len(rows) == 2 * 3
    assert max(abs(row.value) for row in rows) < 1e-9


def test_the_request_is_all_but_the_first_chain():
    setting = markov.measure.build(presets("any")["smoke"])
    assert setting.request.forget.weights.sum() == 80
    assert setting.request.retain.weights.sum() == 120


def test_the_choice_forgets_most_within_the_budget():
    before = np.array([1.0, 1.0])
    after = [np.array(pair) for pair in ([2.0, 1.02], [3.0, 1.04], [9.0, 1.2])]
    assert chosen(after, before, 0.05) == 1
    assert chosen(after[2:] * 2 + after[:0], before, 0.05) == 0
    broken = [np.array([np.nan, np.nan]), np.array([5.0, 1.5])]
    assert chosen(broken, before, 0.05) == 1


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_is_built_with_each_of_its_settings(name):
    learner = markov.measure.build(presets("any")["smoke"]).learner
    tried = settings(name, COSTS, 4)
    assert len(tried) in (1, 4)
    for options in tried:
        METHODS[CONTENDERS[name].method].factory(learner, **options)


def test_newton_spends_no_more_than_the_others():
    own = settings("retain_newton", COSTS, 1)[0]
    step = COSTS.forget + 2 * own["samples"] * own["max_steps"] + COSTS.retain
    assert own["steps"] * step <= 1.1 * COSTS.passes * COSTS.forget
    assert settings("npo", COSTS, 1)[0]["epochs"] == 5
    assert set(SHOWN) <= set(CONTENDERS)
