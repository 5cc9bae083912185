"""Whoever asks for an inverse product gets told how it was come by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.solvers import inverse
from unlearn_jax.solvers.inverse import Curvature, Settings, solve
from unlearn_jax.solvers.solution import (
    DIRECT,
    INCONSISTENT,
    INDEFINITE,
    NOT_FINITE,
    acceptable,
    usable,
)
from unlearn_jax.train.objective import bind

SETTINGS = Settings(damping=0.0, tol=1e-8, max_steps=50)
RHS = {"w": jnp.array([3.0, -2.0, 1.0])}


def curvature(*entries):
    entries = jnp.asarray(entries)
    operator = linear_operator(lambda v: {"w": entries * v["w"]}, RHS)
    return Curvature("hessian", None, RHS, (), operator)


def ask(name, *entries, **settings):
    options = SETTINGS._replace(**settings)
    run = lambda e: solve(jax.random.key(0), curvature(*e), RHS, name, options)  # noqa: E731
    return tiny.quick_jit(run)(jnp.asarray(entries))


@pytest.mark.parametrize("name", ["cg", "minres", "neumann"])
def test_iterations_report_residual_and_steps(name):
    found = ask(name, 1.0, 1.5, 2.0)
    assert bool(found.converged)
    assert 0 < int(found.steps) <= 50
    assert float(found.residual) < 1e-8
    expected = RHS["w"] / jnp.array([1.0, 1.5, 2.0])
    np.testing.assert_allclose(usable(found)["w"], expected, rtol=1e-7)


def test_direct_inverses_claim_no_residual():
    found = ask("dense", 1.0, -1.5, 2.0)
    assert int(found.code) == DIRECT
    assert bool(acceptable(found))
    assert not bool(found.converged)
    assert np.isnan(found.residual)


def test_minres_keeps_its_code():
    found = ask("minres", 1.0, 2.0, 0.0)
    assert int(found.code) == INCONSISTENT
    # The last entry is out of reach: the others are solved for, and 1 / ‖b‖ is left.
    np.testing.assert_allclose(usable(found)["w"][:2], [3.0, -1.0], rtol=1e-10)
    np.testing.assert_allclose(found.residual, 1 / np.sqrt(14), rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "entries", "code"),
    [
        ("cg", (1.0, jnp.nan, 2.0), NOT_FINITE),
        ("minres", (1.0, jnp.inf, 2.0), NOT_FINITE),
        ("cg", (-1.0, -2.0, -3.0), INDEFINITE),
        ("neumann", (-1.0, -2.0, -3.0), INDEFINITE),
    ],
)
def test_what_is_no_inverse_product_is_not_given_as_one(name, entries, code):
    found = ask(name, *entries)
    assert int(found.code) == code
    assert bool(tree.all_finite(found.value))
    with pytest.raises(ArithmeticError, match="no inverse product"):
        usable(found)
    assert np.all(np.isnan(jax.jit(usable)(found)["w"]))


CLASSES = tiny.learner("softmax"), tiny.examples(count=6)
WORDS = tiny_words.learner(), tiny_words.examples(6)


@pytest.mark.parametrize(
    ("given", "most", "labels"),
    [
        (CLASSES, 3, "exact"),
        (CLASSES, 2, "sampled"),
        pytest.param(WORDS, 1000, "sampled", id="sequences of any size"),
    ],
)
def test_labels_of_ekfac_are_drawn_where_outputs_are_many(
    monkeypatch, given, most, labels
):
    monkeypatch.setattr(inverse, "EXACT_OUTPUTS", most)
    learner, data = given
    data = jax.tree.map(jnp.asarray, data)
    assert tiny.CLASSES == 3
    key, settings = jax.random.key(3), SETTINGS._replace(damping=0.1)

    def both(key, params):
        objective = bind(learner.model, {}, learner.loss)
        matrix = inverse.curvature_of("gauss_newton", objective, params, data)
        drawn = key if labels == "sampled" else None
        other = ekfac(drawn, objective, params, data, labels=labels)
        ours = solve(key, matrix, params, "ekfac", settings)
        return ours.value, kronecker_inverse(other, damping=0.1)(params)

    ours, theirs = tiny.quick_jit(both)(key, learner.model.init(key).params)
    assert_trees_close(ours, theirs, rtol=1e-10, atol=1e-13)
