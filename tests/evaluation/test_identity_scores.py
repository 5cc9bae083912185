"""NoMUS with its ceiling, and the forgetting quality, by slower roads."""

import numpy as np
import pytest
from synthetic_outputs import model, scores

from unlearn_jax.evaluation.forgetting_quality import (
    DELTA,
    epsilon,
    final_score,
    forgetting_quality,
    points,
)
from unlearn_jax.evaluation.nomus import nomus


def rated(positive_rate, negative_rate):
    """ε of a threshold's false positive and false negative rates; None: dropped."""
    if positive_rate == negative_rate == 0:
        return np.inf
    if positive_rate == 0 or negative_rate == 0:
        return None
    a = (1 - DELTA - positive_rate) / negative_rate
    b = (1 - DELTA - negative_rate) / positive_rate
    return np.log(max(a, b, 1e-300))


def slow_epsilon(unlearned, oracles):
    """Every threshold and every pair of them, one by one."""
    low, high = sorted((unlearned, oracles), key=np.median)
    values = np.unique(np.concatenate([low, high]))
    cuts = [values[0] - 1, *(values[:-1] + np.diff(values) / 2), values[-1]]
    found = []
    for i, a in enumerate(cuts):
        found.append(rated(np.mean(low > a), np.mean(high <= a)))
        for b in cuts[i + 1 :]:
            inside = [(x > a) & (x <= b) for x in (low, high)]
            found.append(rated(np.mean(inside[0]), 1 - np.mean(inside[1])))
    return min(max([x for x in found if x is not None], default=0.0), 50.0)


@pytest.mark.parametrize("gap", [0.0, 0.7, 2.0, 30.0])
@pytest.mark.parametrize("spread", [1.0, 0.2])
def test_epsilon_is_the_largest_of_all_thresholds_one_by_one(gap, spread):
    random = np.random.default_rng(int(10 * gap))
    a = random.normal(size=17)
    b = gap + spread * random.normal(size=17)
    found = epsilon(a, b)
    assert found == pytest.approx(max(slow_epsilon(a, b), 0.0), abs=1e-9)
    assert epsilon(b, a) == pytest.approx(found, abs=1e-9)
    assert found == 50 or gap < 30
    assert epsilon(a, b, per_unit=100) <= found + 1e-12


def test_a_narrow_sample_between_wide_ones_is_found_by_two_thresholds_only():
    wide = np.concatenate([np.linspace(-3, -2, 20), np.linspace(2, 3, 20)])
    narrow = np.linspace(0.1, 0.2, 40)  # of the larger median
    assert epsilon(wide, narrow) == 50


def test_samples_that_hardly_vary_count_as_told():
    assert epsilon(np.full(9, 3.0), np.arange(9.0)) == 50
    assert epsilon(100 + 1e-3 * np.arange(9.0), np.arange(9.0)) == 50
    assert epsilon(np.zeros(9), np.arange(9.0)) == 50


def test_points_fall_by_half_each_half_unit_and_end():
    found = points([0, 0.49, 0.5, 1.2, 6.9, 7.01, 50], 512)
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.25, 2.0**-13, 0, 0])
    assert points([5.01], 100) == 0  # the largest of 100 models is 5


def members(random, lead, targets, count=40):
    return scores(random, len(targets), lead=lead, members=count, targets=targets)


def test_two_sets_of_oracles_score_above_any_that_was_not_forgotten():
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 12)
    oracles = members(random, 1.0, targets)
    control = forgetting_quality(members(random, 1.0, targets), oracles)
    near = forgetting_quality(members(random, 2.0, targets), oracles)
    far = forgetting_quality(members(random, 9.0, targets), oracles)
    assert 0 <= far.value < near.value < control.value < 1
    assert control.epsilons.shape == (12,)
    assert far.value < 0.01


def test_the_final_score_weighs_by_accuracies():
    assert final_score(0.5, (90.0, 100.0), (80.0, 64.0)) == pytest.approx(0.5625)
    with pytest.raises(ValueError, match="expected positive ones"):
        final_score(0.5, (1.0, 0.0), (1.0, 1.0))


def test_one_model_or_other_examples_are_told():
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 5)
    many, one = members(random, 1.0, targets), members(random, 1.0, targets, count=1)
    with pytest.raises(ValueError, match="at least two of each"):
        forgetting_quality(one, many)
    with pytest.raises(ValueError, match="same forget set"):
        forgetting_quality(many, members(random, 1.0, targets[:3]))


def test_nomus_is_its_formula_and_its_ceiling_is_the_oracle(key):
    random = np.random.default_rng(1)
    oracle = model(random, lead=0.3)
    # Forget and unseen alike: the attack is a coin, whatever the accuracy.
    better = model(random, lead=3.0, like=oracle)
    right = [
        np.mean(m.test.outputs.argmax(-1) == m.test.targets) for m in (better, oracle)
    ]
    assert right[0] > right[1] + 0.2
    open_top, capped = nomus(key, better, None), nomus(key, better, oracle)
    assert open_top - capped == pytest.approx((right[0] - right[1]) / 2)
    attack = abs(2 * open_top - 1 - right[0])  # 2 |M - 1/2|
    assert attack < 0.25
    told = model(random, lead=0.3, forget_lead=30.0, like=oracle)
    assert nomus(key, told, None) < nomus(key, oracle, None) - 0.3
    assert nomus(key, oracle, oracle) == nomus(key, oracle, None)
