import math

import numpy as np
import pytest
from results.fake_records import METHODS, fake_records

from unlearn_jax.evaluation.gap import floor, gap
from unlearn_jax.results.summary import (
    FLOOR,
    lookup,
    methods_in_order,
    summarise,
)

RECORDS = fake_records(train=4, unlearn=2, evaluate=3)


def cube(method, metric, split, field="value"):
    rows = [
        r for r in RECORDS if (r.method, r.metric, r.split) == (method, metric, split)
    ]
    places = [(r.train_seed, r.unlearn_seed, r.evaluate_seed) for r in rows]
    array = np.zeros(np.max(places, axis=0) + 1)
    for place, row in zip(places, rows, strict=True):
        array[place] = getattr(row, field)
    return array


def without(predicate):
    return [r for r in RECORDS if not predicate(r)]


def test_means_errors_and_gaps_follow_the_seeds():
    found = summarise(RECORDS)["ssd", "accuracy", "forget"]
    values, oracle = (cube("ssd", "accuracy", "forget", f) for f in ("value", "oracle"))
    per_seed = values.mean(axis=(1, 2))
    expected = gap(values, oracle[:, 0, :])
    assert found.seeds == (4, 2, 3)
    np.testing.assert_allclose(found.mean, per_seed.mean())
    np.testing.assert_allclose(found.standard_error, per_seed.std(ddof=1) / 2)
    assert found.gap is not None
    np.testing.assert_allclose(found.gap[1:], expected[1:])


def test_order_of_rows_does_not_matter():
    shuffled = [RECORDS[i] for i in np.random.default_rng(0).permutation(len(RECORDS))]
    ours, theirs = summarise(RECORDS), summarise(shuffled)
    assert set(ours) == set(theirs)
    for key, summary in ours.items():
        np.testing.assert_allclose(theirs[key].mean, summary.mean)


def test_the_floor_is_the_spread_of_all_oracles_in_the_pairs():
    found = summarise(RECORDS)["ssd", "accuracy", "test"].floor
    oracles = cube("oracle", "accuracy", "test", "oracle")[:, 0, 0]
    expected = floor(oracles, seeds=4)
    assert found is not None
    np.testing.assert_allclose(found, expected)
    pairs = summarise(RECORDS)[FLOOR, "accuracy", "test"]
    np.testing.assert_allclose(pairs.mean, expected.mean_absolute_difference)


def test_without_pairs_the_oracles_own_rows_give_the_floor():
    found = summarise(without(lambda r: r.method == FLOOR))
    oracles = cube("oracle", "accuracy", "test").mean(axis=(1, 2))
    spread = found["ssd", "accuracy", "test"].floor
    assert spread is not None
    np.testing.assert_allclose(spread, floor(oracles, seeds=4))


def test_closeness_to_an_oracle_has_no_gap_and_pairs_are_averaged():
    found = summarise(RECORDS)
    assert found["ssd", "agreement", "test"].gap is None
    rows = [r.value for r in RECORDS if r.method == FLOOR and r.metric == "agreement"]
    pairs = [found[FLOOR, "agreement", split].mean for split in ("forget", "test")]
    np.testing.assert_allclose(np.mean(pairs), np.mean(rows))


def test_one_training_seed_has_no_error():
    found = summarise(fake_records(train=1))["ssd", "accuracy", "test"]
    assert math.isinf(found.standard_error)
    assert found.gap is not None
    assert found.gap.high == math.inf
    assert found.floor is None


def test_one_failed_record_fails_the_cell_by_its_reason():
    def break_one(r):
        hit = (r.method, r.metric, r.split) == ("ssd", "accuracy", "test")
        if hit and (r.train_seed, r.unlearn_seed, r.evaluate_seed) == (1, 0, 0):
            return r._replace(value=None, failure="outputs are not finite")
        return r

    found = summarise(map(break_one, RECORDS))["ssd", "accuracy", "test"]
    assert found.failure == "outputs are not finite (1 of 24)"
    assert math.isnan(found.mean)


def test_a_metric_that_failed_before_it_had_splits_fails_on_all_of_them():
    kept = without(
        lambda r: (r.method, r.metric, r.train_seed) == ("ssd", "accuracy", 0)
    )
    first = next(r for r in RECORDS if (r.method, r.metric) == ("ssd", "accuracy"))
    found = summarise([*kept, first._replace(split="", value=None, failure="no luck")])
    for split in ("retain", "forget", "test"):
        assert found["ssd", "accuracy", split].failure.startswith("no luck")
    whole = [
        r._replace(split="", value=None, oracle=None, failure="never")
        for r in RECORDS
        if r.metric == "mia_lira"
    ]
    failed = lookup(summarise(whole), "ssd", "mia_lira", "forget")
    assert failed is not None
    assert failed.failure.startswith("never")


def test_missing_and_double_seeds_are_failures():
    rows = [r for r in RECORDS if (r.method, r.metric) == ("ssd", "accuracy")]
    place = ("ssd", "accuracy", "retain")
    assert summarise(rows[1:])[place].failure == "1 of 24 seeds not recorded"
    assert summarise([*rows, rows[0]])[place].failure == "1 values recorded twice"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_kept_and_have_no_gap(value):
    rows = [r._replace(value=value) for r in RECORDS if r.method == "ssd"]
    found = summarise(rows)["ssd", "accuracy", "test"]
    assert not found.failure
    assert found.gap is None
    assert not math.isfinite(found.mean)


def test_does_not_apply_makes_no_cell():
    rows = [r._replace(value=None) for r in RECORDS if r.metric == "accuracy"]
    assert summarise(rows) == {}


def test_methods_keep_their_order_between_original_and_oracle():
    backwards = RECORDS[::-1]
    order = methods_in_order(backwards)
    own = [name for name in METHODS if name not in ("original", "oracle")]
    assert order == ["original", *own[::-1], "oracle", FLOOR]


def test_one_time_written_for_every_seed_has_no_error():
    times = [r._replace(value=2.5) for r in RECORDS if r.metric == "compile_seconds"]
    found = summarise(times)["ssd", "compile_seconds", "all"]
    assert found.mean == 2.5
    assert math.isinf(found.standard_error)
