import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from synthetic_outputs import mean_within

from unlearn_jax.evaluation.lira import lira_scores
from unlearn_jax.evaluation.membership import logistic_attack, threshold_attack
from unlearn_jax.evaluation.ranking import (
    area,
    balanced_accuracy,
    best_threshold,
    true_positive_rate,
)
from unlearn_jax.evaluation.rmia import likelihood_ratios, rmia_scores


def _truth(members, others):
    return np.repeat([1, 0], [members.size, others.size])


@pytest.mark.parametrize("levels", [None, 7, 2, 1])
def test_area_equals_scikit_learn_with_and_without_ties(levels):
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.4, 1.0, 83), rng.normal(0.0, 1.0, 131)
    if levels is not None:
        members, others = (np.round(x * levels) // levels for x in (members, others))
        members, others = (np.clip(x, 0, levels - 1) for x in (members, others))
    want = roc_auc_score(_truth(members, others), np.concatenate([members, others]))
    assert area(members, others).auc == pytest.approx(want, abs=1e-14)


def test_area_counts_by_hand():
    # pairs won: 3 beats 1, 2; 2 beats 1 and ties 2; 0 beats none: 3.5 of 6
    members, others = np.array([3.0, 2.0, 0.0]), np.array([1.0, 2.0])
    assert area(members, others).auc == pytest.approx(3.5 / 6.0)


def test_constant_scores_give_one_half_without_error():
    assert area(np.zeros(5), np.zeros(9)) == (0.5, 0.0)


def test_reversing_the_score_reflects_the_area():
    rng = np.random.default_rng(1)
    members, others = rng.normal(size=20), rng.normal(size=30)
    ahead, reversed_ = area(members, others), area(-members, -others)
    assert ahead.auc + reversed_.auc == pytest.approx(1.0)
    assert ahead.error == pytest.approx(reversed_.error)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_stated_error_is_the_spread_over_samples(shift):
    # DeLong's variance is unbiased: compare squares, over 800 samples
    rng = np.random.default_rng(2)
    drawn = [area(rng.normal(shift, 1, 40), rng.normal(size=60)) for _ in range(800)]
    auc, error = np.array(drawn).T
    mean_within((auc - auc.mean()) ** 2 - error**2, 0.0)


def test_true_positive_rate_never_exceeds_the_accusations_allowed():
    rng = np.random.default_rng(3)
    members, others = rng.integers(0, 40, 500) * 1.0, rng.integers(0, 30, 300) * 1.0
    for at in (0.0, 0.001, 0.01, 0.1, 0.5):
        found = true_positive_rate(members, others, at=at)
        false, true, _ = roc_curve(
            _truth(members, others),
            np.concatenate([members, others]),
            drop_intermediate=False,
        )
        want = true[false <= at + 1e-12].max()
        assert found == pytest.approx(100.0 * want)


def test_with_few_non_members_only_scores_above_all_of_them_count():
    members, others = np.array([5.0, 4.0, 3.0, 1.0]), np.array([4.0, 2.0, 0.0])
    assert true_positive_rate(members, others, at=0.001) == 25.0
    assert true_positive_rate(others[:1], others[:1], at=0.01) == 0.0


def test_exactly_one_percent_of_a_hundred_is_one():
    others = np.arange(100.0)
    assert true_positive_rate(np.array([98.5, 97.5]), others, at=0.01) == 50.0


def test_rate_of_equal_distributions_is_the_stated_one():
    rng = np.random.default_rng(4)
    rates = [
        true_positive_rate(rng.normal(size=50), rng.normal(size=150), at=0.01)
        for _ in range(2000)
    ]
    mean_within(rates, 100.0 * 2.0 / 151.0)


def test_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(5)
    members, others = rng.normal(1.0, 1.0, 30), rng.normal(size=40)
    best = balanced_accuracy(members, others, threshold=best_threshold(members, others))
    every = [
        balanced_accuracy(members, others, threshold=t)
        for t in np.concatenate([members, others, [-10.0]])
    ]
    assert best == pytest.approx(max(every))
    assert balanced_accuracy(members, others, threshold=-10.0) == 50.0


def test_too_few_scores_are_refused():
    with pytest.raises(ValueError, match="2 members and 2 non-members"):
        area(np.zeros(1), np.zeros(5))


def nan_among(count):
    scores = np.random.default_rng(0).normal(size=20)
    scores[:count] = np.nan
    return scores


@pytest.mark.parametrize(
    "ranking",
    [
        area,
        best_threshold,
        balanced_accuracy,
        lambda a, b: true_positive_rate(a, b, at=0.01),
        lambda a, b: threshold_attack(jax.random.key(0), a, b),
        lambda a, b: logistic_attack(jax.random.key(0), a, b),
    ],
    ids=("area", "threshold", "balanced", "rate", "threshold attack", "logistic"),
)
def test_scores_that_are_no_numbers_are_counted_and_refused(ranking):
    whole = nan_among(0)
    with pytest.raises(ValueError, match=r"5 of 20 members' scores and 0 of 20 non-"):
        ranking(nan_among(5), whole)
    with pytest.raises(ValueError, match=r"0 of 20 members' scores and 20 of 20 non-"):
        ranking(whole, nan_among(20))


def test_likelihood_scores_of_what_is_no_number_are_refused():
    whole, broken = nan_among(0), nan_among(2)
    for score, what in (
        (lambda: lira_scores(broken, np.stack([whole, whole + 1])), "2 of 60 margins"),
        (lambda: lira_scores(whole, np.stack([broken, whole])), "2 of 60 margins"),
        (lambda: rmia_scores(broken, whole), "2 of 40 ratios"),
        (
            lambda: likelihood_ratios(whole, broken[None], slope=0.5),
            "2 of 40 probabilities",
        ),
    ):
        with pytest.raises(ValueError, match=f"{what} are NaN or infinite"):
            score()


def test_infinite_scores_are_ranked():
    members, others = np.array([np.inf, 1.0, 2.0]), np.array([-np.inf, 0.0])
    assert area(members, others).auc == 1
