"""Truth, fidelity, spectrum and scaling: their laws, and each once at tiny sizes."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import tiny

from experiments import curvature_fidelity, scaling, spectrum, truth
from experiments.curvature_fidelity.approximations import (
    Point,
    diagonals,
    inverses,
    products,
    states,
)
from experiments.curvature_fidelity.config import Effort
from experiments.frame import study
from experiments.frame.nets import written_out
from experiments.truth.minimum import minimise
from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense, linear_operator
from unlearn_jax.curvature.spectrum import extreme_eigenvalues, spectral_density
from unlearn_jax.train.objective import bind

DAMPING = 0.05


@pytest.fixture(scope="module")
def net():
    learner, data = problems.two_layer()
    objective = bind(learner.model, {}, learner.loss, 0.02)
    params = learner.model.init(jax.random.key(3)).params
    vector = jax.tree.map(jnp.sin, tree.add(params, params))
    return objective, params, data, vector


@pytest.fixture(scope="module")
def matrices(net):
    objective, params, data, _ = net

    @tiny.quick_jit
    def both(params, data):
        return {
            "hessian": dense(hessian(objective, params, data)),
            "gauss_newton": dense(gauss_newton(objective, params, data)),
        }

    return {name: np.asarray(m) for name, m in both(params, data).items()}


def flat(values):
    return np.asarray(jax.flatten_util.ravel_pytree(values)[0])


def full_effort(net):
    """So much effort that solvers and low rank reach the matrix itself."""
    size = tree.size(net[1])
    return Effort((4, 8), (1, 2), (5, 400), size, 18)


def run_entry(net, effort, entry):
    objective, params, data, vector = net

    @tiny.quick_jit
    def apply(params, data, vector):
        point, state = Point(objective, params, data, DAMPING), ()
        if entry.state:
            state = states(effort)[entry.state](jax.random.key(0), point)
        return entry.apply(state, point, vector)

    return flat(apply(params, data, vector))


def test_written_out_equals_dense(net, matrices):
    objective, params, data, _ = net
    written = tiny.quick_jit(
        lambda p, d: written_out(hessian(objective, p, d), block_size=7)
    )(params, data)
    np.testing.assert_allclose(written, matrices["hessian"], atol=1e-14)


@pytest.mark.parametrize("name", ["Hessian", "Gauss-Newton", "low rank"])
def test_exact_products_equal_their_matrix(net, matrices, name):
    effort = full_effort(net)
    entries = products(effort)
    (entry,) = (e for key, e in entries.items() if key.startswith(name))
    found = run_entry(net, effort, entry)
    expected = matrices[entry.target] @ flat(net[3])
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("CG 400", 0, 1e-5),
        ("MINRES", 0, 1e-5),
        ("low rank", 0, 1e-6),
        ("Neumann", 0, 0.05),
        ("CG 5, EK-FAC", 1e-5, 0.05),
        ("damping alone", 0.1, 100),
    ],
)
def test_inverses_invert_as_far_as_they_can(net, matrices, name, least, most):
    effort = full_effort(net)
    entries = inverses(effort)
    (entry,) = (e for key, e in entries.items() if key.startswith(name))
    found = run_entry(net, effort, entry)
    matrix = matrices[entry.target]
    expected = np.linalg.solve(matrix + DAMPING * np.eye(len(matrix)), flat(net[3]))
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert least <= error <= most


@pytest.mark.parametrize("name", ["WoodFisher", "K-FAC", "EK-FAC", "diagonal"])
def test_closed_inverses_undo_their_own_matrix(net, name):
    """Two roads: the damped inverse of an entry against its product, where both are."""
    objective, params, data, vector = net
    effort = full_effort(net)
    inverse = next(e for k, e in inverses(effort).items() if k.startswith(name))
    solved = run_entry(net, effort, inverse)
    _, unflatten = jax.flatten_util.ravel_pytree(vector)
    again = next(
        e
        for k, e in products(effort).items()
        if k == {"WoodFisher": "empirical Fisher"}.get(name, name)
    )
    moved = (objective, params, data, unflatten(jnp.asarray(solved)))
    back = run_entry(moved, effort, again) + DAMPING * solved
    np.testing.assert_allclose(back, flat(vector), atol=1e-8)


def test_exact_diagonals_equal_those_of_their_matrix(net, matrices):
    objective, params, data, _ = net
    expected = np.diag(matrices["gauss_newton"]) - objective.l2
    bare = (objective._replace(l2=0.0), params, data, jax.random.key(0))
    effort = full_effort(net)
    found = run_entry(bare, effort, diagonals(effort)["Gauss-Newton (Fisher)"])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_minimise_finds_the_minimum_of_any_weights():
    learner, data = problems.softmax()
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    start = learner.model.init(jax.random.key(0)).params
    weights = jnp.ones((2, 24)).at[1, :7].set(0.0)
    find = tiny.quick_jit(
        jax.vmap(lambda w: minimise(objective, start, data._replace(weights=w)))
    )
    found = find(weights)
    assert float(jnp.max(found.slope)) <= 1e-11
    second = tree.member(found.params, 1)
    gathered = jax.tree.map(lambda leaf: leaf[7:], data)
    slope = jax.grad(objective.risk)(second, gathered)
    assert float(tree.norm(slope)) < 1e-10
    gap = tree.subtract(second, tree.member(found.params, 0))
    assert float(tree.norm(gap)) > 1e-2


def test_slope_of_a_power_is_its_exponent():
    sizes = np.array([2.0, 5.0, 11.0])
    np.testing.assert_allclose(scaling.measure.slope(sizes, 3.0 * sizes**1.5), 1.5)


def test_facts_of_a_known_spectrum():
    values = jnp.asarray([-3.0, -1.0] + [0.0] * 5 + [2.0, 4.0, 10.0])
    operator = linear_operator(lambda v: values * v, values)

    @tiny.quick_jit
    def look(key):
        ends = extreme_eigenvalues(key, operator, steps=6)
        return ends, spectral_density(key, operator, probes=2, steps=6)

    ends, density = look(jax.random.key(0))
    facts = spectrum.measure.facts(density, ends, jnp.asarray([10.0, 4.0]))
    # A diagonal matrix is seen exactly by vectors of signs.
    expected = {
        "largest_eigenvalue": 10.0,
        "smallest_eigenvalue": -3.0,
        "trace": 12.0,
        "negative_share": 0.2,
        "negative_mass": 0.2,
        "outlier_mass": 0.7,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(facts[name], value, rtol=1e-9, err_msg=name)
    rows = spectrum.show.density_rows("Hessian", density, np.asarray([10.0]), 3)
    for kind, count in (("positive", 3), ("negative", 2)):
        own = [row for row in rows if row["kind"] == kind]
        decades = np.log10([abs(row["eigenvalue"]) for row in own])
        area = np.trapezoid([row["value"] for row in own], decades)
        np.testing.assert_allclose(area, count, rtol=1e-3)


def test_truth_end_to_end_meets_its_bars(study_run):
    words = "--scale smoke --data.limit 120 --leave-outs 8 --queries 6 --subsets 8"
    rows = study_run(truth.STUDY, f"{words} --bootstrap 4").rows
    assert rows.places("method") == list(truth.measure.INVERSES)
    for metric, bar in truth.show.BARS.items():
        assert rows.values(metric).min() >= bar
    np.testing.assert_allclose(*rows.values("loo_pearson"), atol=1e-5)
    assert rows.value("gradient_norm") <= 1e-10


@pytest.mark.slow
def test_fidelity_end_to_end(study_run, monkeypatch):
    """A few entries: all of them are tried above."""

    def few(kind, *names):
        table = curvature_fidelity.measure.KINDS[kind]
        chosen = lambda effort: {  # noqa: E731 — in place of the table
            k: v for k, v in table(effort).items() if k.startswith(names)
        }
        monkeypatch.setitem(curvature_fidelity.measure.KINDS, kind, chosen)

    few("diagonal", "Gauss-Newton", "empirical")
    few("product", "Hessian", "diagonal")
    few("inverse", "MINRES", "diagonal")
    words = "--scale smoke --data.limit 60 --nets linear --epochs 400 --l2 0.1"
    words += " --request random:2 --damping 1e-4 --vectors 2"
    rows = study_run(curvature_fidelity.STUDY, words).rows
    for name in ("Gauss-Newton (Fisher)", "empirical Fisher"):
        assert rows.value("error", kind="diagonal", method=name) < 1e-5
    assert rows.value("error", kind="product", method="Hessian") < 1e-5
    assert rows.value("error", kind="product", method="diagonal") > 0.01
    # Where the risk is convex, influence goes most of the way to the oracle.
    exact, solved, crude = (
        rows.value("parameter_distance", kind="inverse", method=name)
        for name in ("dense Hessian", "MINRES 50, Hessian", "diagonal")
    )
    assert exact < 0.5 < crude
    np.testing.assert_allclose(solved, exact, rtol=0.1)


def test_an_approximation_that_fails_is_a_named_row(study_run, monkeypatch):
    kinds = curvature_fidelity.measure.KINDS

    def table(effort):
        own = products(effort)["Hessian"]
        broken = own._replace(apply=lambda s, at, v: at.of(no_such_matrix))
        return {"broken": broken, "Hessian": own}

    def no_such_matrix(*where):
        raise RuntimeError("no such matrix")

    monkeypatch.setitem(kinds, "diagonal", lambda effort: {})
    monkeypatch.setitem(kinds, "product", table)
    monkeypatch.setitem(kinds, "inverse", lambda effort: {})
    words = "--scale smoke --data.limit 40 --nets linear --epochs 5 --vectors 1"
    rows = study_run(curvature_fidelity.STUDY, words, code=1).rows
    assert {row.at["method"] for row in rows if row.failure} == {"broken"}
    assert rows.value("error", kind="product", method="Hessian") < 1e-4


def test_spectrum_end_to_end(study_run, monkeypatch):
    monkeypatch.setattr(spectrum.measure, "MATRICES", {"Hessian": hessian})
    words = "--scale smoke --data.limit 80 --net linear --epochs 20 --probes 2"
    done = study_run(spectrum.STUDY, f"{words} --steps 12 --outliers 4")
    found = {(r.at.get("method"), r.metric): r.value for r in done.rows}
    # A linear model has a convex loss.
    assert found["Hessian", "negative_mass"] < 1e-6
    assert found["Hessian", "largest_eigenvalue"] < found["Hessian", "trace"]
    assert found["Hessian", "largest_eigen_residual"] < 1e-3


def test_scaling_end_to_end_and_memory_does_not_grow(study_run, monkeypatch):
    timed = scaling.measure.OPERATIONS
    few = {k: timed[k] for k in ("gradient", "Gauss-Newton product")}
    monkeypatch.setattr(scaling.measure, "OPERATIONS", few)
    words = "--scale smoke --examples 64 256 --widths 8 16 --batch-size 32"
    rows = study_run(scaling.STUDY, words).rows
    assert set(rows.places("method")) == set(few)
    slopes = rows.values("bytes_slope", against="examples")
    assert len(slopes) == len(few)
    assert np.all(np.abs(slopes) < 0.05)
    seconds = rows.values("seconds")
    assert len(seconds) == 4 * len(few)
    assert seconds.min() > 0


@pytest.mark.parametrize(
    ("asked", "words", "says"),
    [
        (truth.STUDY, "--l2 0", "more than 0"),
        (truth.STUDY, "--queries 9999", "360 test examples"),
        (truth.STUDY, "--data.name diabetes", "for classification"),
        (truth.STUDY, "--data.name fashion_mnist --data.dir nowhere", "nowhere"),
        (truth.STUDY, "--scale tiny", "choose from"),
        (curvature_fidelity.STUDY, "--width 600", "at most 6000"),
        (curvature_fidelity.STUDY, "--request random:9999", "9999"),
        (curvature_fidelity.STUDY, "--request clustered:20", "trained original"),
        (curvature_fidelity.STUDY, "--damping 0", "damping"),
        (spectrum.STUDY, "--steps 99999", "parameters"),
        (spectrum.STUDY, "--probes 1", "at least 2"),
        (scaling.STUDY, "--widths 8", "two different"),
        (scaling.STUDY, "--batch-size 99999", "smallest"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, asked, words, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        study.run(asked, [*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
