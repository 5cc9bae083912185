import jax
import numpy as np
import pytest
from scipy import stats
from synthetic_outputs import mean_within

from unlearn_jax.evaluation.ranking import area
from unlearn_jax.evaluation.unlearning_lira import control, unlearning_lira

KEYS = jax.random.split(jax.random.key(3), 120)
FIELDS = ("accuracy", "auc", "tpr_at_1_percent", "tpr_at_0_1_percent")


def ensemble(rng, models, *, examples=25, shift=0.0, together=0.7):
    """Margins that go up and down together, at a difficulty for each example."""
    own = rng.normal(size=(models, examples))
    shared = rng.normal(size=(models, 1))
    difficulty = np.linspace(-3, 3, examples)
    return difficulty + shift + np.sqrt(1 - together**2) * own + together * shared


@pytest.mark.parametrize("models", [8, 40])
def test_two_equal_kinds_give_one_half_with_honest_errors(models):
    # few models share one deviation, many have one for each example
    rng = np.random.default_rng(models)
    found = [
        unlearning_lira(key, ensemble(rng, models), ensemble(rng, models), resamples=2)
        for key in KEYS
    ]
    mean_within([a.auc for a in found], 0.5)
    mean_within([a.accuracy for a in found], 50.0)
    for name, most in (("auc", 1.3), ("accuracy", 1.5)):
        deviation = np.std([getattr(a, name) for a in found], ddof=1)
        errors = [getattr(a, f"{name}_error") for a in found]
        claimed = np.sqrt(np.mean(np.square(errors)))
        # a deviation of 120 values is known to within 6.5%
        assert 0.8 < claimed / deviation < most, name


def test_control_is_the_attack_on_two_halves_of_one_kind():
    rng = np.random.default_rng(1)
    found = [control(key, ensemble(rng, 16), resamples=2).auc for key in KEYS]
    mean_within(found, 0.5)


def test_errors_of_true_positive_rates_cover_their_spread():
    rng = np.random.default_rng(2)
    found = [
        unlearning_lira(
            key, ensemble(rng, 30, shift=1.0), ensemble(rng, 30), resamples=30
        )
        for key in KEYS[:60]
    ]
    for name in FIELDS[2:]:
        deviation = np.std([getattr(a, name) for a in found], ddof=1)
        errors = [getattr(a, f"{name}_error") for a in found]
        assert 0.6 < np.sqrt(np.mean(np.square(errors))) / deviation < 1.8, name


def test_known_gaussians_give_the_bayes_accuracy_and_area():
    # two unit Gaussians at distance d: accuracy Phi(d/2), area Phi(d/sqrt 2)
    rng = np.random.default_rng(4)
    far = ensemble(rng, 400, shift=1.5, together=0.0)
    found = unlearning_lira(KEYS[0], far, ensemble(rng, 400, together=0.0), resamples=5)
    expected = 100 * stats.norm.cdf(0.75), stats.norm.cdf(1.5 / np.sqrt(2))
    # scores of 200 models' fits lose some 0.1% to the best rule
    assert abs(found.accuracy - expected[0]) < 4 * found.accuracy_error + 0.2
    assert abs(found.auc - expected[1]) < 4 * found.auc_error + 0.002
    rate = 100 * stats.norm.sf(stats.norm.isf(0.01) - 1.5)
    assert abs(found.tpr_at_1_percent - rate) < 4 * found.tpr_at_1_percent_error + 0.3
    np.testing.assert_allclose(found.accuracies.mean(), found.accuracy)


def test_it_sees_a_change_of_spread_that_a_threshold_does_not():
    rng = np.random.default_rng(5)
    never = ensemble(rng, 80)
    narrow = ensemble(rng, 80)
    middle = np.linspace(-3, 3, 25)
    narrow = middle + 0.3 * (narrow - middle)
    found = unlearning_lira(KEYS[0], narrow, never)
    assert found.auc > 0.7
    plain = [area(narrow[:, i], never[:, i]).auc for i in range(25)]
    assert abs(np.mean(plain) - 0.5) < 0.1


def test_one_example_that_stayed_shows_among_many_forgotten():
    rng = np.random.default_rng(6)
    unlearned = ensemble(rng, 40)
    unlearned[:, 7] += 5.0
    found = unlearning_lira(KEYS[0], unlearned, ensemble(rng, 40))
    assert found.accuracies[7] > 95
    assert np.delete(found.accuracies, 7).mean() < 60


def test_the_scale_and_place_of_margins_do_not_matter():
    rng = np.random.default_rng(7)
    sides = ensemble(rng, 20, shift=1.0), ensemble(rng, 12)
    found = unlearning_lira(KEYS[0], *sides)
    moved = unlearning_lira(KEYS[0], *(4.0 * side - 16.0 for side in sides))
    for one, other in zip(found, moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_constant_margins_tell_nothing_and_apart_tell_all():
    ones = np.ones((8, 3))
    same = unlearning_lira(KEYS[0], ones, ones)
    assert (same.accuracy, same.auc, same.tpr_at_1_percent) == (50.0, 0.5, 0.0)
    apart = unlearning_lira(KEYS[0], ones, 2 * ones)
    assert (apart.accuracy, apart.auc, apart.tpr_at_1_percent) == (100.0, 1.0, 100.0)


def test_what_makes_no_sense_is_refused():
    good = np.zeros((8, 3))
    with pytest.raises(ValueError, match="do not fit"):
        unlearning_lira(KEYS[0], good, good[:, :2])
    with pytest.raises(ValueError, match="4 models of each kind"):
        unlearning_lira(KEYS[0], good, good[:3])
    with pytest.raises(ValueError, match="NaN"):
        unlearning_lira(KEYS[0], good, good + np.nan)
    with pytest.raises(ValueError, match="8 models or more"):
        control(KEYS[0], good[:7])
