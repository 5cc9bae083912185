from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from unlearn_jax.evaluation.klom import (
    klom,
    klom_control,
    klom_floor,
    percentiles,
)
from unlearn_jax.evaluation.outputs import Scores, margins

CAP = np.log(1e5 + 19)


def counted(p, q, edges, *, last):
    """Histograms of two samples by a loop; ``last`` counts the last edge."""
    sides = []
    for values in (p, q):
        inside = [np.sum((values >= a) & (values < b)) for a, b in pairwise(edges)]
        inside[-1] += last * np.sum(values == edges[-1])
        sides.append(np.asarray(inside, float))
    return sides


def by_hand(p, q, definition, *, clip, floor=1e-5):
    p = np.clip(p, -clip, clip)
    if definition != "dmm":
        q = np.clip(q, -clip, clip)
    low, high = min(p.min(), q.min()), max(p.max(), q.max())
    points = 20 if definition == "dmm" else 21
    a, b = counted(p, q, np.linspace(low, high, points), last=definition == "fixed")
    if definition == "easydub":
        a, b = a / a.sum(), b / b.sum()
        return sum(
            x * np.log(x / max(y, floor)) for x, y in zip(a, b, strict=True) if x > 0
        )
    if definition == "dmm":
        a, b = np.concatenate([[0], a]), np.concatenate([[0], b])
    return stats.entropy(a, np.maximum(b / b.sum(), floor))


@pytest.fixture(scope="module")
def ensembles():
    """Uneven numbers of models, heavy tails that meet the clip, equal values."""
    rng = np.random.default_rng(0)
    unlearned = rng.standard_t(3, (37, 60)) * 2.0 + rng.normal(size=60)
    oracle = rng.normal(size=(50, 60))
    oracle[:, 1] = np.round(oracle[:, 1])
    unlearned[:, 1] = np.round(unlearned[:, 1])
    return unlearned, oracle


@pytest.mark.parametrize("clip", [100.0, 1.5])
@pytest.mark.parametrize("definition", ["fixed", "easydub", "dmm"])
def test_each_definition_is_its_formula_counted_by_a_loop(ensembles, definition, clip):
    found = klom(*ensembles, definition=definition, clip=clip)
    pairs = zip(*(side.T for side in ensembles), strict=True)
    expected = [by_hand(p, q, definition, clip=clip) for p, q in pairs]
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-9, atol=1e-12)


def test_the_fixed_definition_is_the_entropy_of_numpy_histograms(ensembles):
    unlearned, oracle = ensembles
    found = klom(unlearned, oracle, bins=7, floor=1e-3)
    for i, value in enumerate(found):
        ends = np.concatenate([unlearned[:, i], oracle[:, i]])
        sides = [
            np.histogram(side[:, i], 7, (ends.min(), ends.max()))[0] / len(side)
            for side in ensembles
        ]
        expected = stats.entropy(sides[0], np.maximum(sides[1], 1e-3))
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_no_value_is_lost_where_the_published_forms_lose_the_largest():
    # nine models agree and the tenth one, the largest of all, does not
    oracle = np.zeros((10, 1))
    unlearned = np.zeros((10, 1))
    unlearned[0] = 5.0
    fixed, easydub, dmm = (
        klom(unlearned, oracle, definition=d)[0] for d in ("fixed", "easydub", "dmm")
    )
    np.testing.assert_allclose(
        fixed, 0.1 * np.log(0.1 / 1e-5) + 0.9 * np.log(0.9), 1e-3
    )
    assert easydub == 0.0
    assert 0.0 < dmm < 1e-3


def test_range_and_ends_of_klom():
    rng = np.random.default_rng(1)
    near, far = rng.uniform(0, 1, (30, 5)), rng.uniform(50, 51, (30, 5))
    np.testing.assert_allclose(klom(near, near), 0.0, atol=20e-5)
    assert np.all(klom(near, near) >= 0)
    # one bin each, and 19 floored: the cap
    np.testing.assert_allclose(klom(near, far), CAP, rtol=1e-12)
    # the tails beyond the clip count as one value
    np.testing.assert_array_equal(klom(200 + near, 200 + far), 0.0)
    assert klom(200 + near, 200 + far, clip=np.inf)[0] > 11


@pytest.mark.parametrize("definition", ["fixed", "easydub", "dmm"])
def test_constant_margins_are_no_difference(definition):
    found = klom(np.ones((4, 3)), np.ones((6, 3)), definition=definition)
    np.testing.assert_array_equal(found, 0.0)


def test_shift_and_scale_change_nothing_and_order_of_sides_does():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(40, 30)), 1.5 * rng.normal(size=(40, 30))
    np.testing.assert_allclose(klom(4 * a + 8, 4 * b + 8), klom(a, b), rtol=1e-6)
    assert np.mean(np.abs(klom(a, b) - klom(b, a))) > 0.05


def test_pieces_and_dtypes_do_not_matter(monkeypatch, tmp_path):
    rng = np.random.default_rng(3)
    a = rng.normal(size=(20, 50)).astype(np.float32)
    b = rng.normal(size=(30, 50)).astype(np.float32)
    whole = klom(a, b)
    np.save(tmp_path / "a.npy", a)
    monkeypatch.setattr("unlearn_jax.evaluation.klom._CHUNK", 350)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(klom(mapped, b.astype(np.float64)), whole)


TABLE = {
    20: (2.96, 5.0),
    50: (0.76, 1.74),
    100: (0.30, 0.66),
    200: (0.13, 0.27),
    500: (0.047, 0.095),
}


@pytest.mark.parametrize("members", TABLE)
def test_the_floor_of_the_published_form_is_the_known_table(members):
    floor = klom_floor(
        members, examples=500, repetitions=8, definition="easydub", seed=members
    )
    # 4,000 examples: about 2% of the median, 3% of the 95th percentile; two digits
    np.testing.assert_allclose(floor.centre[:2], TABLE[members], rtol=0.06)
    fixed = klom_floor(members, examples=500, repetitions=8, seed=members).centre
    np.testing.assert_allclose(fixed[:2], TABLE[members], rtol=0.12)
    for low, middle, high in zip(floor.low, floor.centre, floor.high, strict=True):
        assert low < middle < high


def test_the_band_holds_nineteen_of_twenty_percentiles():
    band = klom_floor(40, 60, examples=80, repetitions=200, seed=1)
    fresh = np.random.default_rng(2)
    inside = np.zeros(3)
    trials = 150
    for _ in range(trials):
        values = klom(fresh.normal(size=(40, 80)), fresh.normal(size=(60, 80)))
        ends = zip(band.low, percentiles(values), band.high, strict=True)
        inside += [low <= value <= high for low, value, high in ends]
    # binomial error 0.018, and as much again from the simulated quantiles
    np.testing.assert_allclose(inside / trials, 0.95, atol=0.07)


def ridge_margins(rng, models, *, examples=400, keep=None):
    """Margins of bootstrapped ridge classifiers on random features of their own."""
    data = np.random.default_rng(5)
    labels = np.arange(examples) % 3
    inputs = data.normal(size=(3, 6))[labels] + data.normal(size=(examples, 6))
    kept = np.arange(examples) if keep is None else keep
    outputs = []
    for _ in range(models):
        layer = rng.normal(size=(7, 60))
        features = np.tanh(np.c_[inputs, np.ones(examples)] @ layer)
        rows = rng.choice(kept, kept.size)
        seen, wanted = features[rows], 6.0 * np.eye(3)[labels[rows]]
        gram = seen.T @ seen + np.eye(60)
        outputs.append(features @ np.linalg.solve(gram, seen.T @ wanted))
    return margins(Scores(np.stack(outputs), labels))


def test_two_halves_of_a_real_ensemble_lie_in_the_band_and_others_do_not():
    rng = np.random.default_rng(4)
    ensemble = ridge_margins(rng, 200)
    band = klom_floor(100, examples=400, repetitions=60)
    control = klom_control(ensemble, splits=8)
    halves = percentiles(klom(ensemble[:100], ensemble[100:]))
    rows = zip(band.low, halves, control, band.high, strict=True)
    for low, value, cuts, high in rows:
        assert low <= value <= high
        assert np.mean((cuts >= low) & (cuts <= high)) >= 0.5
    without = np.flatnonzero(np.arange(400) % 3 != 0)
    oracles = ridge_margins(rng, 100, keep=without)
    changed = percentiles(klom(ensemble[:100, ::3], oracles[:, ::3]))
    assert changed.p50 > 10 * band.high.p50


def test_what_makes_no_sense_is_refused():
    good = np.zeros((4, 3))
    with pytest.raises(ValueError, match="do not fit"):
        klom(good, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="none of them empty"):
        klom(np.zeros((0, 3)), good)
    with pytest.raises(ValueError, match="bins >= 2"):
        klom(good, good, bins=1)
    with pytest.raises(ValueError, match="1 of 12 margins are NaN"):
        klom(good, np.where(np.arange(12).reshape(4, 3) == 5, np.nan, good))
    with pytest.raises(ValueError, match="two halves"):
        klom_control(good[:1])
    with pytest.raises(ValueError, match="finite values"):
        percentiles(np.array([1.0, np.nan]))
