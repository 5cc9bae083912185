import numpy as np
import pytest
import scipy.stats
from synthetic_outputs import mean_within

from unlearn_jax.evaluation.gap import floor, gap


def test_interval_equals_scipys_paired_t_by_hand():
    rng = np.random.default_rng(0)
    values, oracle = rng.normal(size=(5, 3, 2)), rng.normal(size=(5, 2))
    found = gap(values, oracle)
    test = scipy.stats.ttest_rel(values.mean(axis=(1, 2)), oracle.mean(axis=1))
    interval = test.confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low, rel=1e-10)
    assert found.high == pytest.approx(interval.high, rel=1e-10)
    assert found.mean == pytest.approx(found.per_seed.mean())
    assert found.standard_error == pytest.approx(scipy.stats.sem(found.per_seed))


def test_interval_covers_the_truth_in_95_of_100_cases():
    # noise at all three levels; 2,000 comparisons, s.e. of the coverage 0.005
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        train = rng.normal(size=(4, 1, 1))
        values = 0.3 + train + rng.normal(size=(4, 2, 1)) + rng.normal(size=(4, 2, 2))
        oracle = rng.normal(size=(4, 1)) + rng.normal(size=(4, 2))
        found = gap(values, oracle)
        covered.append(float(found.low <= 0.3 <= found.high))
    mean_within(covered, 0.95)


def test_one_training_seed_gives_an_infinite_interval():
    found = gap(np.ones((1, 9, 9)), np.zeros((1, 9)))
    assert found.mean == 1.0
    assert (found.standard_error, found.low, found.high) == (np.inf, -np.inf, np.inf)


def test_more_inner_seeds_do_not_pretend_to_be_more_training_seeds():
    rng = np.random.default_rng(2)
    values, oracle = rng.normal(size=(3, 1, 1)), rng.normal(size=(3, 1))
    once = gap(values, oracle)
    often = gap(np.repeat(values, 50, axis=1), oracle)
    assert often.high - often.low == pytest.approx(once.high - once.low)


def test_seeds_that_do_not_fit_and_failed_runs_are_refused():
    # the shape checker of this suite speaks first; without it the function does
    with pytest.raises((TypeError, ValueError), match=r"oracle[ _]values"):
        gap(np.zeros((2, 3, 4)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one seed at each level"):
        gap(np.zeros((2, 0, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        gap(np.full((2, 1, 1), np.nan), np.zeros((2, 1)))


def test_floor_counts_by_hand():
    found = floor(np.array([1.0, 2.0, 4.0]), seeds=2)
    assert found.mean_absolute_difference == pytest.approx((1 + 3 + 2) / 3)
    deviation = np.std([1.0, 2.0, 4.0], ddof=1)
    assert found.half_width == pytest.approx(scipy.stats.t.ppf(0.975, 2) * deviation)


@pytest.mark.parametrize(("members", "seeds"), [(2, 1), (4, 3), (10, 5)])
def test_oracle_pairs_fall_inside_the_floor_in_95_of_100_cases(members, seeds):
    # 2,000 floors, each with fresh oracle pairs; s.e. of the share 0.005
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(2000):
        half_width = floor(rng.normal(size=members), seeds=seeds).half_width
        fresh = rng.normal(size=seeds) - rng.normal(size=seeds)
        inside.append(float(abs(fresh.mean()) <= half_width))
    mean_within(inside, 0.95)


def test_floor_of_one_oracle_is_refused():
    with pytest.raises(ValueError, match="two oracles"):
        floor(np.zeros(1), seeds=5)
