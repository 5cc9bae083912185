import jax
import numpy as np
import pytest
from synthetic_outputs import mean_within, model

from unlearn_jax.evaluation import References, measure
from unlearn_jax.evaluation.outputs import SplitOutputs, confidences, stack_members
from unlearn_jax.evaluation.ranking import area
from unlearn_jax.evaluation.rmia import (
    choose_slope,
    likelihood_ratios,
    rmia_attack,
    rmia_scores,
)

KEYS = jax.random.split(jax.random.key(11), 120)


def others_like(rng, like, count, **settings):
    models = [model(rng, like=like, **settings) for _ in range(count)]
    return stack_members(models)


def test_scores_are_shares_of_pairs_counted_one_by_one():
    rng = np.random.default_rng(0)
    ratios, population = rng.integers(1, 9, 12) / 4, rng.integers(1, 9, 20) / 4
    for gamma in (1.0, 2.0):
        expected = [
            np.mean([(x > gamma * z) + 0.5 * (x == gamma * z) for z in population])
            for x in ratios
        ]
        found = rmia_scores(ratios, population, gamma=gamma)
        np.testing.assert_allclose(found, np.asarray(expected), atol=1e-15)


def test_ratios_follow_the_line_from_out_to_in():
    out = np.array([[0.2, 0.8], [0.4, 0.6]])
    own = np.array([0.5, 0.7])
    # p_in = a p_out + 1 - a and p = (p_in + p_out) / 2
    for slope in (0.0, 0.3, 1.0):
        mean = np.array([0.3, 0.7])
        inside = slope * mean + 1 - slope
        found = likelihood_ratios(own, out, slope=slope)
        np.testing.assert_allclose(found, own / (0.5 * (inside + mean)))
    assert np.isfinite(likelihood_ratios(own, np.zeros((1, 2)), slope=1.0)).all()


@pytest.mark.parametrize("members", [1, 4])
def test_between_oracles_it_finds_nothing(members):
    rng = np.random.default_rng(members)
    found, sizes = [], (4, 60, 4, 90)
    for key in KEYS:
        like = model(rng, sizes=sizes)
        references = others_like(rng, like, members, sizes=sizes)
        found.append(rmia_attack(key, like, references))
    mean_within([a.auc for a in found], 0.5)
    mean_within([a.balanced_accuracy for a in found], 50.0)


def test_harder_examples_leave_an_oracle_below_one_half_as_documented():
    rng = np.random.default_rng(9)
    target = model(rng, forget_lead=-1.0)
    references = others_like(rng, target, 4, forget_lead=-1.0)
    low = rmia_attack(KEYS[0], target, references, slope=0.0)
    assert low.auc < 0.5 - 4.0 * low.auc_error
    full = rmia_attack(KEYS[0], target, references, slope=1.0)
    assert abs(full.auc - 0.5) < abs(low.auc - 0.5) / 2


def test_a_model_against_itself_gives_one_half_to_rounding():
    # the same examples as members and as population: no point gains by meeting itself
    rng = np.random.default_rng(3)
    target = model(rng)
    same = target._replace(forget=target.unseen)
    references = others_like(rng, target, 2)
    references = references._replace(forget=references.unseen)
    found = rmia_attack(KEYS[0], same, references)
    np.testing.assert_allclose(found.auc, 0.5, rtol=1e-12)


def test_it_finds_a_fitted_forget_set_that_its_difficulty_hides():
    rng = np.random.default_rng(4)
    target = model(rng)
    references = others_like(rng, target, 4, forget_lead=-2.0)
    found = rmia_attack(KEYS[0], target, references, slope=1.0)
    assert found.auc > 0.5 + 4.0 * found.auc_error
    plain = area(confidences(target.forget), confidences(target.unseen))
    assert abs(plain.auc - 0.5) < 4.0 * plain.error


def test_gamma_and_population_never_change_the_order():
    rng = np.random.default_rng(5)
    ratios = rng.uniform(0.5, 2.0, 50)
    for gamma in (0.5, 1.0, 2.0):
        scores = rmia_scores(ratios, rng.uniform(0.5, 2.0, 40), gamma=gamma)
        assert np.all(np.diff(scores[np.argsort(ratios)]) >= 0)


def test_the_slope_is_the_one_that_attacks_the_paired_model_best():
    rng = np.random.default_rng(6)
    target = model(rng)
    paired = model(rng, forget_lead=2.0, like=target)
    references = others_like(rng, target, 3)
    slope = choose_slope(paired, references)
    areas = {
        a / 10: rmia_attack(KEYS[0], paired, references, slope=a / 10).auc
        for a in range(11)
    }
    assert areas[slope] == max(areas.values())
    assert len(set(areas.values())) > 3
    chosen = rmia_attack(KEYS[0], target, references, paired=paired)
    assert chosen == rmia_attack(KEYS[0], target, references, slope=slope)


def test_the_metric_is_the_attack_with_the_references():
    rng = np.random.default_rng(7)
    target = model(rng, forget_lead=3.0)
    references = others_like(rng, target, 2)
    asked = References(target, references)
    rows = measure(["mia_rmia"], KEYS[0], target, asked, task="classification")
    assert rows == [
        ("mia_rmia", "forget", rmia_attack(KEYS[0], target, references).auc)
    ]
    with pytest.raises(ValueError, match="needs reference oracles"):
        measure(
            ["mia_rmia"], KEYS[0], target, References(target), task="classification"
        )


def test_what_makes_no_sense_is_refused():
    rng = np.random.default_rng(8)
    target = model(rng)
    assert isinstance(target, SplitOutputs)
    with pytest.raises(ValueError, match=r"expected \(members, examples\)"):
        rmia_attack(KEYS[0], target, target)
    with pytest.raises(ValueError, match=r"slope is 1\.5"):
        rmia_attack(KEYS[0], target, stack_members([target]), slope=1.5)
    with pytest.raises(ValueError, match="gamma > 0"):
        rmia_attack(KEYS[0], target, stack_members([target]), gamma=0.0)
