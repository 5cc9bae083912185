"""Regression: transport to the oracle, attacks beyond the loss, the anamnesis index."""

import jax
import numpy as np
import pytest
import scipy.stats
import tiny

from unlearn_jax.data.batch import pad, take
from unlearn_jax.evaluation.confidence import error_attack
from unlearn_jax.evaluation.membership import loss_attack
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs, stack_members
from unlearn_jax.evaluation.regression_attacks import (
    calibrated_attack,
    residual_ratio_attack,
)
from unlearn_jax.evaluation.relearn import anamnesis_index, relearn_steps
from unlearn_jax.evaluation.transport import wasserstein
from unlearn_jax.train.loss import squared_error

SIZES = (200, 150, 150, 150)


def test_wasserstein_is_that_of_scipy_and_blind_to_who_is_whose():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(50, 2)), 2 * random.normal(size=(50, 2)) + 1
    targets = np.zeros((50, 2))
    expected = np.mean(
        [scipy.stats.wasserstein_distance(a[:, i], b[:, i]) for i in (0, 1)]
    )
    found = wasserstein(Scores(a, targets), Scores(b, targets))
    assert found == pytest.approx(expected, rel=1e-12)
    shuffled = Scores(random.permutation(a), targets)
    assert wasserstein(Scores(a, targets), shuffled) == 0


def regression(random, hardness, kept=1.0, members=1):
    """Models whose errors follow how hard an example is; forget ones by ``kept``."""
    found = []
    for _ in range(members):
        parts = []
        for name, hard in zip(SplitOutputs._fields, hardness, strict=True):
            spread = hard * (kept if name == "forget" else 1.0)
            outputs = spread[:, None] * random.normal(size=(len(hard), 1))
            parts.append(Scores(outputs, np.zeros((len(hard), 1))))
        found.append(SplitOutputs(*parts))
    return found[0] if members == 1 else stack_members(found)


@pytest.fixture(scope="module")
def hardness():
    random = np.random.default_rng(5)
    return [np.exp(1.5 * random.normal(size=n)) for n in SIZES]


@pytest.mark.parametrize("attack", [calibrated_attack, residual_ratio_attack])
def test_an_oracle_is_not_told_from_other_oracles(key, hardness, attack):
    random = np.random.default_rng(1)
    others = regression(random, hardness, members=20)
    found = attack(key, regression(random, hardness), others)
    assert abs(found.auc - 0.5) < 4 * found.auc_error


def test_who_knows_how_hard_an_example_is_finds_members_that_the_loss_hides(
    key, hardness
):
    random = np.random.default_rng(2)
    harder = [*hardness]
    harder[1] = 4 * harder[1]  # what is to be forgotten is harder than what is unseen
    others = regression(random, harder, members=20)
    target = regression(random, harder, kept=0.25)
    by_loss = loss_attack(key, target)
    by_ratio = residual_ratio_attack(key, target, others)
    assert abs(by_loss.auc - 0.5) < 4 * by_loss.auc_error
    assert by_ratio.auc > 0.5 + 8 * by_ratio.auc_error
    assert calibrated_attack(key, target, others).auc > by_loss.auc


def test_the_ratio_is_the_gaussian_of_the_logarithm_by_hand(key, hardness):
    random = np.random.default_rng(3)
    others, target = (
        regression(random, hardness, members=20),
        regression(random, hardness),
    )
    own = np.concatenate([0.5 * s.outputs[:, 0] ** 2 for s in target[1:4:2]])
    out = np.concatenate([0.5 * s.outputs[..., 0] ** 2 for s in others[1:4:2]], 1)
    least = 1e-6 * np.median(out)
    logs = [-np.log(np.maximum(x, least)) for x in (own, out)]
    z = (logs[0] - logs[1].mean(0)) / logs[1].std(0, ddof=1)
    inside, outside = z[:150, None], z[None, 150:]
    auc = np.mean((inside > outside) + 0.5 * (inside == outside))
    assert residual_ratio_attack(key, target, others).auc == pytest.approx(auc)


def test_references_without_members_are_told(key, hardness):
    target = regression(np.random.default_rng(0), hardness)
    for attack in (calibrated_attack, residual_ratio_attack):
        with pytest.raises(ValueError, match=r"expected \(members, examples\)"):
            attack(key, target, target)


def test_the_error_machine_judges_memorised_examples_seen(key):
    random = np.random.default_rng(4)
    ones = [np.ones(n) for n in SIZES]
    ones[0] = 0.05 * ones[0]
    fresh = error_attack(key, regression(random, ones))
    memorised = error_attack(key, regression(random, ones, kept=0.05))
    assert memorised < 20 < 80 < fresh


def test_the_anamnesis_index_does_not_depend_on_the_order_of_calls():
    learner = tiny.learner("mlp", learning_rate=0.5, loss=squared_error)
    forget = pad(take(tiny.numeric(tiny.examples()), [1, 2, 8, 13, 24, 33]), 8)
    models = [learner.model.init(jax.random.key(i)) for i in (1, 2)]
    before = [tiny.flat(model.params) for model in models]

    @tiny.quick_jit
    def count(model, forget):
        return relearn_steps(
            jax.random.key(0), learner, model, forget, 0.15, max_steps=60, batch_size=4
        )

    def index():
        return anamnesis_index(*(int(count(model, forget)) for model in models))

    first = index()
    assert index() == first > 0
    assert all(
        np.array_equal(tiny.flat(m.params), b)
        for m, b in zip(models, before, strict=True)
    )
    with pytest.raises(ValueError, match="the oracle needs 0 steps"):
        anamnesis_index(3, 0)
