import numpy as np
import pytest
import scipy.stats

from unlearn_jax.evaluation.gap import floor
from unlearn_jax.evaluation.verdict import (
    Comparison,
    chance_level,
    compare,
    furthest,
    verdict,
)


def words(**changes):
    numbers = {
        "relative_change": 0.1,
        "test_accuracy": 90.0,
        "chance": 10.0,
        "examples": 900,
        "comparisons": [],
        "seeds": 5,
    }
    return verdict(**{**numbers, **changes})


def test_an_ordinary_row_gets_no_word():
    assert words() == ()


def test_only_exactly_no_change_is_called_so():
    assert words(relative_change=0.0) == ("changed nothing",)
    assert words(identical_outputs=True) == ("changed nothing",)
    assert words(relative_change=1e-12) == ()


def test_destroyed_is_within_four_binomial_errors_of_chance():
    # chance 10 % of 900 examples: one error is 1 %
    assert words(test_accuracy=14.0) == ("destroyed",)
    assert words(test_accuracy=14.1) == ()
    assert words(test_accuracy=0.0) == ("destroyed",)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_destroyed(broken):
    assert words(test_accuracy=broken) == ("destroyed",)
    assert words(relative_change=broken) == ("destroyed",)


def test_without_classes_only_what_is_not_finite_is_destroyed():
    assert words(test_accuracy=None) == ()
    assert words(test_accuracy=None, relative_change=np.nan) == ("destroyed",)


def held(gap=0.0, width=1.0, deviation=0.5, widest=1.0, **more):
    return Comparison("accuracy test", gap, width, deviation, widest, **more)


def test_inside_the_floor_needs_every_core_metric():
    near = [held(gap=-1.0), held(gap=0.9)]
    assert words(comparisons=near) == ("inside the floor",)
    assert words(comparisons=[*near, held(gap=1.01)]) == ("outside the floor",)
    assert words(comparisons=[*near, held(gap=np.nan)]) == ("outside the floor",)
    assert words(comparisons=[]) == ()


def test_a_spread_that_oracles_do_not_have_is_outside():
    assert words(comparisons=[held(deviation=1.1)]) == ("outside the floor",)
    assert words(comparisons=[held(deviation=0.0)]) == ("inside the floor",)


def test_only_falling_short_of_an_agreement_counts():
    assert words(comparisons=[held(gap=5.0, one_sided=True)]) == ("inside the floor",)
    assert words(comparisons=[held(gap=-1.1, one_sided=True)]) == ("outside the floor",)


def test_what_the_seeds_cannot_tell_is_undecided():
    assert words(comparisons=[held(gap=3.0)], seeds=2) == ("undecided",)
    assert words(comparisons=[held(width=np.inf)]) == ("undecided",)
    assert words(comparisons=[held()], told_apart=False) == ("undecided",)
    far = [held(gap=2.0)]
    assert words(comparisons=far, told_apart=False) == ("outside the floor",)


def test_the_furthest_is_told_in_floors():
    far = furthest([held(gap=0.5), held(gap=-1.3), held(deviation=0.7)])
    assert far.floors == pytest.approx(1.3)
    assert furthest([]) is None
    assert held(deviation=0.8).floors == pytest.approx(0.8)
    assert held(gap=0.1, width=0.0).floors == np.inf


def test_what_cannot_be_told_is_no_distance_of_zero():
    for unknown in (held(gap=np.nan), held(deviation=np.nan), held(width=np.inf)):
        assert np.isnan(unknown.floors)
        for every in ([unknown, held(gap=3.0)], [held(gap=3.0), unknown]):
            assert furthest(every) is unknown
    alone = compare("a", 0.3, np.nan, 1, floor(np.arange(4.0), seeds=1), metrics=2)
    assert np.isnan(alone.floors)


def test_width_and_spread_are_scipys():
    oracles = np.random.default_rng(0).normal(size=16)
    found = compare("a", 0.3, 2.0, 5, floor(oracles, seeds=5), metrics=4)
    s, share = oracles.std(ddof=1), 0.05 / 8
    width = scipy.stats.t.ppf(1 - share / 2, 15) * s * np.sqrt(1 / 5 + 1 / 16)
    assert found.half_width == pytest.approx(width)
    assert found.gap == pytest.approx(0.3 - oracles.mean())
    assert found.widest == pytest.approx(s * scipy.stats.f.ppf(1 - share, 4, 15) ** 0.5)
    lone = compare("a", 0.3, np.nan, 1, floor(oracles, seeds=1), metrics=4)
    assert lone.half_width == np.inf
    stepped = compare("a", 0.0, 0.0, 5, floor(np.ones(4), seeds=5), metrics=4, step=0.5)
    assert stepped.half_width == stepped.widest == 0.5


@pytest.mark.parametrize("common", [0.0, 0.7], ids=["independent", "correlated"])
def test_true_oracles_pass_in_about_95_of_100_draws(common):
    # 4 core metrics, 5 seeds against 16 oracles; s.e. of the share 0.004 to 0.005
    random, passed = np.random.default_rng(4), []
    for _ in range(2000):
        shared = random.normal(size=(21, 1))
        values = common**0.5 * shared + (1 - common) ** 0.5 * random.normal(
            size=(21, 4)
        )
        fresh, oracles = values[:5], values[5:]
        tests = [
            compare(
                "m",
                float(f.mean()),
                float(f.std(ddof=1)),
                5,
                floor(o, seeds=5),
                metrics=4,
            )
            for f, o in zip(fresh.T, oracles.T, strict=True)
        ]
        passed.append(all(one.floors <= 1 for one in tests))
    share = np.mean(passed)
    assert 0.94 <= share <= 0.975, share


@pytest.mark.parametrize(
    ("shift", "factor"), [(3.0, 1.0), (0.0, 6.0)], ids=["moved", "spread"]
)
def test_what_is_no_oracle_is_told_apart(shift, factor):
    random, passed = np.random.default_rng(5), []
    for _ in range(200):
        oracles, other = random.normal(size=16), shift + factor * random.normal(size=5)
        one = compare(
            "m",
            float(other.mean()),
            float(other.std(ddof=1)),
            5,
            floor(oracles, seeds=5),
            metrics=4,
        )
        passed.append(one.floors <= 1)
    assert np.mean(passed) < 0.1


def test_chance_is_the_largest_class():
    assert chance_level(np.array([0, 1, 1, 2])) == 50.0
