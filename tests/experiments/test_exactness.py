"""Exactness over a stream: the truth is true, and the forms keep to their bounds."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from experiments import exactness
from experiments._exactness_forms import GRAM, INVERSE, KEPT, SINGLE
from experiments._exactness_reference import (
    GOAL,
    cholesky_solution,
    exact_sums,
    floats,
    head_error,
    qr_solution,
    reference,
)
from experiments._exactness_run import BOUND, CHOLESKY, QR
from experiments._exactness_stream import KINDS, draw_requests
from experiments._exactness_tables import TIMES
from unlearn_jax.results.record import read_records

L2S = (1.0, 1e-3, 1e-6)


def drawn(seed=0, **changes):
    targets = np.random.default_rng(7).integers(10, size=800)
    options = {"requests": 120, "most": 50, "seed": seed} | changes
    return targets, *draw_requests(targets, **options)


def test_only_rows_within_leave_and_only_others_come():
    targets, within, requests = drawn()
    assert {request.kind for request in requests} == set(KINDS)
    sizes = []
    for request in requests:
        assert len(request.forget) + len(request.learn) > 0
        assert within[request.forget].all()
        assert not within[request.learn].any()
        expected = within.copy()
        expected[request.forget] = False
        expected[request.learn] = True
        np.testing.assert_array_equal(request.within, expected)
        if request.kind == "forget a class":
            (label,) = np.unique(targets[request.forget])
            assert not np.any(request.within & (targets == label))
        elif request.kind != "relearn a class":
            sizes += [max(len(request.forget), len(request.learn))]
        within = request.within
    assert min(sizes) == 1
    assert 30 <= max(sizes) <= 50


def test_the_seed_decides_the_requests():
    first, again, other = drawn(3), drawn(3), drawn(4)
    jax.tree.map(np.testing.assert_array_equal, first[1:], again[1:])
    assert np.any(first[1] != other[1])


def problem(n=9, f=4, k=2, *, close=False):
    random = np.random.default_rng(1)
    rows = np.round(np.maximum(random.normal(size=(n, f)), 0) * 2.0**16) / 2.0**16
    if close:
        rows[:, 1] = rows[:, 0]
        rows[0, 1] += 2.0**-16
    return rows, np.eye(k)[random.integers(0, k, n)]


def total(a, b, i, j) -> Fraction:
    return sum((x[i] * y[j] for x, y in zip(a, b, strict=True)), Fraction(0))


def fractions(rows, targets, l2):
    """Gauss's elimination without rounding."""
    f = rows.shape[1]
    x = [[Fraction(float(v)) for v in row] for row in rows]
    y = [[Fraction(float(v)) for v in row] for row in targets]
    table = [
        [total(x, x, i, j) + (Fraction(l2) if i == j else 0) for j in range(f)]
        + [total(x, y, i, j) for j in range(targets.shape[1])]
        for i in range(f)
    ]
    for i in range(f):
        table[i] = [entry / table[i][i] for entry in table[i]]
        for j in range(f):
            if j != i:
                factor = table[j][i]
                pairs = zip(table[j], table[i], strict=True)
                table[j] = [a - factor * b for a, b in pairs]
    return [row[f:] for row in table]


@pytest.mark.parametrize(
    ("close", "l2"), [(False, 1.0), (False, 1e-6), (True, 1e-3), (True, 1e-11)]
)
def test_the_reference_is_the_solution_in_fractions(close, l2):
    rows, targets = problem(close=close)
    sums = exact_sums(rows.astype(np.float32), targets)
    by_qr, factor = qr_solution(sums.triangle, 2, l2)
    found = reference(sums, l2, factor)
    assert found.bound <= GOAL
    expected = fractions(rows, targets, l2)
    off = [
        Fraction(float(high)) + Fraction(float(low)) - whole
        for high, low, whole in zip(
            found.high.ravel(),
            found.low.ravel(),
            [entry for row in expected for entry in row],
            strict=True,
        )
    ]
    size = float(np.linalg.norm(found.high))
    # high + low has 106 digits; what is proven is a little less.
    assert float(sum(x * x for x in off)) ** 0.5 <= 2 * GOAL * size
    gram, moment = floats(sums)
    np.testing.assert_array_equal(gram, rows.T @ rows)
    by_cholesky = cholesky_solution(gram, moment, l2)
    condition = np.linalg.cond(gram + l2 * np.eye(4))
    assert 1e-17 < head_error(by_cholesky, found) < 20 * 2.0**-53 * condition
    assert head_error(by_qr, found) < 20 * 2.0**-53 * condition


def test_a_triangle_of_something_else_does_not_converge():
    rows, targets = problem()
    sums = exact_sums(rows, targets)
    with pytest.raises(ArithmeticError, match="l2 = 1 stops"):
        reference(sums, 1.0, 0.1 * np.eye(4))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One stream at scale smoke: its folder and its numbers."""
    results = tmp_path_factory.mktemp("results")
    assert exactness.command(["--scale", "smoke", "--results", str(results)]) == 0
    (folder,) = (results / "exactness").iterdir()
    return folder, read_records(folder / "records.jsonl")


def of(run, method, metric, l2=None):
    """Numbers of a form in the order of the stream."""
    return [
        r.value
        for r in run[1]
        if (r.method, r.metric) == (method, metric)
        and l2 in (None, float(r.split.removeprefix("l2=")))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("l2", L2S)
def test_every_form_keeps_its_bounds(run, l2):
    assert max(of(run, "reference", "bound", l2)) <= GOAL
    fresh = np.minimum(
        of(run, CHOLESKY, "head_error", l2), of(run, QR, "head_error", l2)
    )
    assert len(fresh) == 3
    for form in (GRAM, KEPT, INVERSE):
        errors = np.array(of(run, form, "head_error", l2))
        assert len(errors) == 3 - (form == KEPT)
        # The inverse has a bound of its own: its drift, measured below.
        if form != INVERSE:
            assert np.all(errors <= TIMES * fresh[-len(errors) :])
            assert errors.max() <= 1e-15
        for other in (QR, CHOLESKY, "reference"):
            assert max(of(run, form, f"predictions, {other}", l2)) <= BOUND
    # The two roads of the fresh solve are two: they do not agree to the last digit.
    assert 0 < max(of(run, CHOLESKY, f"predictions, {QR}", l2)) <= BOUND


@pytest.mark.slow
def test_sums_are_those_that_never_saw_the_rows(run):
    assert of(run, GRAM, "bit_identical") == [1.0] * 9
    assert of(run, KEPT, "bit_identical") == [1.0] * 6
    assert of(run, GRAM, "equals_integers") == [1.0] * 3
    assert of(run, GRAM, "exact") == [1.0] * 3
    assert not any(of(run, form, "refused") for form in (GRAM, KEPT, INVERSE))


@pytest.mark.slow
def test_the_drift_of_the_inverse_is_seen(run):
    for l2 in L2S:
        drift = of(run, INVERSE, "drift", l2)
        assert len(drift) == 12
        assert 1e-16 < drift[-1] < 1e-10
        assert max(of(run, KEPT, "drift", l2)) <= 1e-15


@pytest.mark.slow
def test_float32_keeps_its_bound_or_refuses(run):
    refused = of(run, SINGLE, "solve_refused")
    assert len(refused) == 10
    true = of(run, SINGLE, "head_error")
    assert len(true) == len(refused) - sum(refused) >= 4
    assert max(true) <= 1e-3
    assert min(of(run, SINGLE, "exact")) == 1.0


@pytest.mark.slow
def test_float32_tells_its_error(run):
    true, reported = of(run, SINGLE, "head_error"), of(run, SINGLE, "reported_error")
    for error, said in zip(true, reported, strict=True):
        assert error <= 20 * max(said, 2.0**-24)


@pytest.mark.slow
def test_the_run_is_written_with_its_figure(run):
    text = (run[0] / "tables.md").read_text()
    for words in ("Exactness after mixed requests", "Drift.", "Sums in float32."):
        assert words in text
    assert (run[0] / "figures" / "exactness.png").stat().st_size > 20_000
    lines = (run[0] / "figures" / "exactness.csv").read_text()
    for form in (GRAM, KEPT, INVERSE, CHOLESKY, QR):
        assert f",{form}," in lines


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--width 20000", "16384"),
        ("--l2s 0", "l2 is 0"),
        ("--single-l2s -1", "l2 is -1"),
        ("--watch 0", "at least 1"),
        ("--checks 9999", "no more checks"),
        ("--most 9999", "an eighth"),
        ("--requests 0 --checks 0", "at least 1"),
        ("--model.name linear", "no backbone"),
        ("--data.name diabetes", "classes"),
        ("--data.name fashion_mnist --data.dir nowhere", "nowhere"),
        ("--scale tiny", "choose from"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        exactness.command([*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
