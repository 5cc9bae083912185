"""The study of Markov chains: its distances, its choice, and what everybody spends."""

import jax
import jaxtyping
import numpy as np
import pytest
import tiny_words
from jax.flatten_util import ravel_pytree

from experiments import markov
from experiments.language.contenders import (
    CONTENDERS,
    RHOS,
    SHOWN,
    Costs,
    by_win_rate,
    settings,
)
from experiments.language.trials import Task, chosen, losses_of, tried
from experiments.language.verdict import verdict
from experiments.markov.config import presets
from experiments.markov.measure import divergences, kl
from unlearn_jax.data.batch import take
from unlearn_jax.data.markov import true_log_probabilities
from unlearn_jax.methods import METHODS, make_request

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
    assert setting.task.request.forget.weights.sum() == 80
    assert setting.task.request.retain.weights.sum() == 120
    assert len(setting.task.unseen.weights) == 40
    assert setting.dataset.classes == 13


def test_the_choice_forgets_most_within_the_budget_or_comes_near_the_unseen():
    before = np.array([1.0, 1.0, 2.5])
    after = np.array([[2.0, 1.02, 0], [3.0, 1.04, 0], [9.0, 1.2, 0], [2.4, 1.9, 0]])
    assert chosen(after, before, 0.05) == 1
    assert chosen(after, before, 0.01) == 0
    assert chosen(after, before, 0.05, "unseen") == 0
    assert chosen(after[2:], before, 0.05, "unseen") == 1
    broken = np.array([[np.nan, np.nan, 0], [5.0, 1.5, 0]])
    assert chosen(broken, before, 0.05) == chosen(broken, before, 0.05, "unseen") == 1


def test_one_program_serves_all_rates_and_gives_what_each_alone_gives():
    learner = tiny_words.learner(optimizer="adam", dtype=np.float32)
    data = tiny_words.examples()
    request, costs = make_request(data, [0, 3, 7]), Costs(3, 21, 4)
    task = Task(learner, data, request, take(data, np.arange(2)), costs, 2, 0)
    variables = [learner.model.init(jax.random.key(seed)) for seed in range(2)]
    flats = np.stack([ravel_pytree(one.params)[0] for one in variables])
    jaxtyping.config.update("jaxtyping_disable", True)  # A traced rate is no float.
    try:
        found = tried(task, "npo", 2, flats, losses_of(task))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert found.params.shape == (2, *flats.shape)
    assert found.losses.shape == (2, 2, 3)
    keys = jax.random.split(jax.random.key(3000), 2)
    for own, moved in zip(found.options, found.params, strict=True):
        method = METHODS["npo"].factory(learner, **own)
        key = jax.random.split(keys[1])[1]
        alone = jax.jit(method.forget)(key, (), variables[1], request)[0]
        np.testing.assert_allclose(moved[1], ravel_pytree(alone.params)[0], rtol=2e-5)
        assert np.abs(moved[1] - flats[1]).max() > 1e-3


def test_rho_is_where_three_in_ten_are_not_clipped():
    rates = [0.0, 0.02, 0.28, *np.linspace(0.5, 1, len(RHOS) - 3)]
    assert by_win_rate(rates) == RHOS[2]


def test_the_verdict_pairs_seeds_and_knows_what_is_no_difference():
    same = np.array([0.1, 0.9, 0.5])
    known = {"npo": same + 0.01, "signs": same[::-1], "ssd": same + 1, "sophia": same}
    (told,) = verdict(known, "nats", "Here")
    assert "sophia is nearest" in told
    assert "nats nearer than npo" in told
    assert "than signs, which is no difference" in told
    assert not verdict({"npo": same}, "nats", "Here")
    (alone,) = verdict({"npo": same, "ssd": same}, "nats", "Here")
    assert "ssd, the only method of second order, ends" in alone


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_is_built_with_each_of_its_settings(name):
    learner = markov.measure.build(presets("any")["smoke"]).task.learner
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
