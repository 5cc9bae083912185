"""Random estimates of diagonals and traces, against what they estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from jax.flatten_util import ravel_pytree

from unlearn_jax.curvature.operator import diagonal, linear_operator
from unlearn_jax.curvature.stochastic_diagonal import (
    bekas_diagonal,
    hutchinson_diagonal,
    hutchinson_trace,
)
from unlearn_jax.types import Estimate

LIKE = {"a": jnp.zeros((2, 3)), "b": [jnp.zeros(4), jnp.zeros(())]}
SIZE = 11
MATRIX = np.random.default_rng(0).standard_normal((SIZE, SIZE))
MATRIX = MATRIX @ MATRIX.T
UNRAVEL = ravel_pytree(LIKE)[1]
DIAGONAL = UNRAVEL(np.diag(MATRIX).copy())


def symmetric(matrix):
    return linear_operator(lambda v: UNRAVEL(matrix @ ravel_pytree(v)[0]), LIKE)


def gaussian(key, operator, **options):
    return bekas_diagonal(key, operator, kind="gaussian", **options)


def hadamard(key, operator, **options):
    return bekas_diagonal(key, operator, kind="hadamard", **options)


ESTIMATORS = {
    "hutchinson": hutchinson_diagonal,
    "gaussian": gaussian,
    "hadamard": hadamard,
}


def estimates(estimator, seed, count, matrix=MATRIX, **options):
    """``count`` independent estimates as flat arrays (count, p)."""

    def one(key, matrix):
        estimate = estimator(key, symmetric(matrix), **options)
        return ravel_pytree(estimate.value)[0], ravel_pytree(estimate.stderr)[0]

    keys = jax.random.split(jax.random.key(seed), count)
    many = tiny.quick_jit(jax.vmap(one, (0, None)))
    return tuple(map(np.asarray, many(keys, matrix)))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_diagonal_lies_within_its_errors_which_are_true(name):
    # 12 of 16 rows would leave the Hadamard estimate little error; 8 is half.
    probes = 8 if name == "hadamard" else 64
    values, errors = estimates(ESTIMATORS[name], 1, 200, probes=probes, block_size=3)
    expected = np.diag(MATRIX)
    if name != "hadamard":  # few probes: their spread is itself uncertain
        inside = np.abs(values - expected) < 4 * errors
        assert inside.mean() > 0.995
        assert np.all(np.abs(values[0] - expected) < 4 * errors[0])
    # The scatter of 200 estimates is what the errors say, and their mean is unbiased.
    scatter = values.std(axis=0, ddof=1)
    claimed = np.sqrt(np.mean(errors**2, axis=0))
    np.testing.assert_allclose(scatter, claimed, rtol=0.25)
    bias = np.abs(values.mean(axis=0) - expected)
    allowance = 4 * scatter / np.sqrt(200)
    if name == "gaussian":  # a ratio: biased by the order of 1/probes
        allowance = allowance + claimed**2 / expected
    assert np.all(bias < allowance)
    assert np.all(claimed < expected)  # tight enough to fail


def test_trace_lies_within_its_errors_which_are_true():
    values, errors = estimates(hutchinson_trace, 2, 200, probes=32)
    expected = np.trace(MATRIX)
    assert np.mean(np.abs(values - expected) < 4 * errors) > 0.99
    np.testing.assert_allclose(
        values.std(ddof=1), np.sqrt(np.mean(errors**2)), rtol=0.25
    )
    assert np.abs(values.mean() - expected) < 4 * values.std() / np.sqrt(200)


@pytest.mark.parametrize("name", ["hutchinson", "gaussian", "trace"])
def test_errors_halve_with_four_times_the_probes(name):
    estimator = ESTIMATORS.get(name, hutchinson_trace)
    few = estimates(estimator, 3, 40, probes=32)[1]
    many = estimates(estimator, 3, 40, probes=128)[1]
    ratio = np.sqrt(np.mean(many**2) / np.mean(few**2))
    assert 0.45 < ratio < 0.55


@pytest.mark.parametrize("block_size", [1, 4, 5, 99])
def test_blocks_do_not_change_the_estimate(block_size):
    def estimate(matrix):
        return hutchinson_diagonal(
            jax.random.key(0), symmetric(matrix), probes=10, block_size=block_size
        )

    found = tiny.quick_jit(estimate)(MATRIX)
    keys = jax.random.split(jax.random.key(0), 10)
    samples = []
    for key in keys:
        leaf_keys = jax.random.split(key, 3)
        leaves = zip(leaf_keys, jax.tree.leaves(LIKE), strict=True)
        z = np.concatenate(
            [np.ravel(jax.random.rademacher(k, x.shape, x.dtype)) for k, x in leaves]
        )
        samples.append(z * (MATRIX @ z))
    value = np.mean(samples, axis=0)
    error = np.std(samples, axis=0, ddof=1) / np.sqrt(10)
    expected = Estimate(UNRAVEL(value), UNRAVEL(error))
    assert_trees_close(found, expected, rtol=1e-10)


def test_diagonal_matrix_is_found_exactly():
    entries = UNRAVEL(np.linspace(-2, 3, SIZE))
    for estimator in ESTIMATORS.values():
        found = tiny.quick_jit(lambda k, e, f=estimator: f(k, diagonal(e), probes=5))(
            jax.random.key(0), entries
        )
        assert_trees_close(found.value, entries, rtol=1e-12)
        assert np.all(ravel_pytree(found.stderr)[0] < 1e-7)
    trace = hutchinson_trace(jax.random.key(0), diagonal(entries), probes=5)
    np.testing.assert_allclose(trace.value, np.linspace(-2, 3, SIZE).sum(), rtol=1e-12)
    assert trace.stderr < 1e-12


def test_all_hadamard_rows_are_exact():
    found = hadamard(jax.random.key(0), symmetric(MATRIX), probes=16)
    assert_trees_close(found.value, DIAGONAL, rtol=1e-12)
    assert not np.any(ravel_pytree(found.stderr)[0])


def test_errors_of_a_large_diagonal_do_not_drown():
    # Squares summed naively would lose the spread of 1e-3 beside entries of 1e6.
    off = 1e-3 * (np.ones((SIZE, SIZE)) - np.eye(SIZE))
    matrix = 1e6 * np.eye(SIZE) + off
    _, errors = estimates(hutchinson_diagonal, 4, 20, matrix, probes=64)
    expected = 1e-3 * np.sqrt(SIZE - 1) / 8
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), expected, rtol=0.1)


def test_single_precision_stays_single():
    like = jax.tree.map(lambda x: x.astype(jnp.float32), LIKE)
    for estimator in (*ESTIMATORS.values(), hutchinson_trace):
        shape = jax.eval_shape(
            lambda key, e=estimator: e(key, diagonal(like), probes=3), jax.random.key(0)
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(shape)} == {jnp.dtype("float32")}


def test_what_can_not_be_estimated_is_refused():
    key, operator = jax.random.key(0), symmetric(MATRIX)
    with pytest.raises(ValueError, match="got 1 probes"):
        hutchinson_diagonal(key, operator, probes=1)
    with pytest.raises(ValueError, match="blocks of 0"):
        hutchinson_trace(key, operator, probes=4, block_size=0)
    with pytest.raises(ValueError, match="at most the 16 rows"):
        hadamard(key, operator, probes=17)
    with pytest.raises(ValueError, match="kind='normal'"):
        bekas_diagonal(key, operator, probes=4, kind="normal")
