"""Exactness over a stream: the truth is true, and the forms keep to their bounds."""

from fractions import Fraction

import jax
import numpy as np
import pytest

from experiments.exactness import STUDY, follow
from experiments.exactness.follow import BOUND, CHOLESKY, QR, Course, segment
from experiments.exactness.forms import GRAM, INVERSE, KEPT, SINGLE, Features
from experiments.exactness.reference import (
    GOAL,
    cholesky_solution,
    exact_sums,
    floats,
    head_error,
    qr_solution,
    reference,
)
from experiments.exactness.requests import KINDS, draw_requests
from experiments.exactness.show import TIMES
from experiments.frame import study
from unlearn_jax.results.rows import Row

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
    assert study.run(STUDY, ["--scale", "smoke", "--results", str(results)]) == 0
    (folder,) = (results / "exactness").iterdir()
    return folder, study.read_results(folder).rows


def of(run, method, metric, **at):
    """Numbers of a form in the order of the stream."""
    return list(run[1].values(metric, method=method, **at))


@pytest.mark.slow
@pytest.mark.parametrize("l2", L2S)
def test_every_form_keeps_its_bounds(run, l2):
    assert max(of(run, "reference", "bound", l2=l2)) <= GOAL
    fresh = np.minimum(
        of(run, CHOLESKY, "head_error", l2=l2), of(run, QR, "head_error", l2=l2)
    )
    assert len(fresh) == 3
    for form in (GRAM, KEPT, INVERSE):
        errors = np.array(of(run, form, "head_error", l2=l2))
        assert len(errors) == 3 - (form == KEPT)
        # The inverse has a bound of its own: its drift, measured below.
        if form != INVERSE:
            assert np.all(errors <= TIMES * fresh[-len(errors) :])
            assert errors.max() <= 1e-15
        for other in (QR, CHOLESKY, "reference"):
            assert max(of(run, form, "predictions", l2=l2, to=other)) <= BOUND
    # The two roads of the fresh solve are two: they do not agree to the last digit.
    assert 0 < max(of(run, CHOLESKY, "predictions", l2=l2, to=QR)) <= BOUND


@pytest.mark.slow
def test_sums_are_those_that_never_saw_the_rows(run):
    assert of(run, GRAM, "bit_identical") == [1.0] * 9
    assert of(run, KEPT, "bit_identical") == [1.0] * 6
    assert of(run, GRAM, "equals_integers") == [1.0] * 3
    assert of(run, GRAM, "exact") == [1.0] * 3
    assert not any(of(run, form, "refused") for form in (GRAM, KEPT))


@pytest.mark.slow
def test_the_inverse_refuses_to_learn_where_it_could_not_forget(run):
    """A row of ‖x‖² / l2 above some 7e5 is refused, so where the ridge is least."""
    refused = run[1].where("refused", method=INVERSE)
    assert refused.places("l2") == [1e-6]


@pytest.mark.slow
def test_the_drift_of_the_inverse_is_seen(run):
    for l2 in L2S:
        drift = of(run, INVERSE, "drift", l2=l2)
        assert len(drift) == 12
        assert 1e-16 < drift[-1] < 1e-10
        assert max(of(run, KEPT, "drift", l2=l2)) <= 1e-15


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
    before = (run[0] / "tables.md").read_bytes()
    study.report(STUDY, run[0])
    assert (run[0] / "tables.md").read_bytes() == before


def test_a_run_that_was_killed_catches_up_and_measures_the_rest(monkeypatch):
    """The same rows as from a course that went on; forms are counters here."""

    def counted(name, given, position, gram, states):
        at = {"position": position, "form": name}
        return [Row("requests", gram, at=at), Row("forms", len(states), at=at)]

    monkeypatch.setattr(follow, "learn", lambda given, chosen, dtype=None: 0)
    monkeypatch.setattr(follow, "inverse", lambda gram, l2: gram)
    monkeypatch.setattr(follow, "kept", lambda gram, l2: gram)
    monkeypatch.setattr(follow, "pieces_of", lambda given, request: request)
    monkeypatch.setattr(
        follow, "apply", lambda name, state, pieces: (state + 1, int(state == 2))
    )
    monkeypatch.setattr(follow, "_watch", lambda *a: counted("watch", *a))
    monkeypatch.setattr(
        follow, "_check", lambda g, p, within, *a: counted("check", g, p, *a)
    )
    targets, start, requests = drawn(requests=6)
    empty = np.zeros(0)
    given = Features(empty, targets, 10, empty, (1.0,), (1.0,), 2, (3, 5), 2, 3)
    course = Course(given, start, requests)
    first, rest = segment(course, 0, 3), segment(course, 3, 5)
    assert segment(Course(given, start, requests), 3, 5) == rest
    assert [row.at["position"] for row in first] == [2, 2, 3, 3, 3, 3, 3]
    assert [row.value for row in rest if row.metric == "requests"] == [4, 5]
    # Forms join after two and after three requests; all refuse the third.
    assert [row.value for row in first + rest if row.metric == "forms"] == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--width 20000", "16384"),
        ("--l2s 0", "l2s is 0"),
        ("--single-l2s -1", "single_l2s is -1"),
        ("--watch 0", "at least 1"),
        ("--checks 9999", "no more checks"),
        ("--most 9999", "an eighth"),
        ("--requests 0 --checks 0", "at least 1"),
        ("--model.name linear", "model.name"),
        ("--data.name diabetes", "classes"),
        ("--data.name fashion_mnist --data.dir nowhere", "nowhere"),
        ("--scale tiny", "choose from"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        study.run(STUDY, [*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
