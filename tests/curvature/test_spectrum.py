"""Lanczos against dense eigenvalues: ends, density, sums, and early exhaustion."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import tiny

from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense, diagonal, linear_operator
from unlearn_jax.curvature.spectrum import (
    Spectrum,
    density_on_grid,
    extreme_eigenvalues,
    spectral_density,
    spectral_sum,
)


def symmetric(matrix):
    return linear_operator(lambda v: matrix @ v, jnp.zeros(len(matrix)))


def rotated(eigenvalues, seed=0):
    size = len(eigenvalues)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    return basis @ np.diag(eigenvalues) @ basis.T


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_ends_of_a_hessian_equal_dense_eigenvalues(name):
    p = nets.problem(name)

    @tiny.quick_jit
    def ends(params, data, key):
        return extreme_eigenvalues(
            key, hessian(p.objective, params, data), steps=p.size
        )

    found = ends(p.params, p.data, jax.random.key(1))
    values = np.linalg.eigvalsh(nets.dense_hessian(name))
    np.testing.assert_allclose(found[:2], values[[0, -1]], rtol=1e-8)
    assert max(found[2:]) < 1e-10


def test_residuals_bound_the_error_and_ends_lie_inside():
    values = np.linspace(-1, 3, 60)
    matrix = rotated(values)
    ends = tiny.quick_jit(lambda m, k: extreme_eigenvalues(k, symmetric(m), steps=8))(
        matrix, jax.random.key(0)
    )
    for end, residual in [
        (ends.smallest, ends.smallest_residual),
        (ends.largest, ends.largest_residual),
    ]:
        assert values[0] <= end <= values[-1]
        assert 1e-6 < residual < 1  # eight steps do not converge
        assert np.abs(values - end).min() <= residual


@pytest.mark.parametrize(
    "values",
    [
        np.ones(12),
        np.repeat([0.0, 2.0, 5.0], 4),
        np.r_[np.zeros(9), 1.0, 2.0, -4.0],
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_an_exhausted_space_leaves_no_trace(values, turned):
    matrix = rotated(values) if turned else np.diag(values)

    @tiny.quick_jit
    def both(matrix, key):
        operator = symmetric(matrix)
        spectrum = spectral_density(key, operator, probes=3, steps=10)
        return extreme_eigenvalues(key, operator, steps=10), spectrum

    ends, spectrum = both(matrix, jax.random.key(2))
    np.testing.assert_allclose(ends[:2], [values.min(), values.max()], atol=1e-10)
    assert max(ends[2:]) < 1e-9
    assert np.all(np.isfinite(spectrum.nodes))
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1, rtol=1e-10)
    seen = np.asarray(spectrum.nodes)[np.asarray(spectrum.weights) > 1e-12]
    assert np.abs(seen[:, None] - values[None, :]).min(axis=1).max() < 1e-9


@pytest.fixture(scope="module")
def curved():
    """Quadrature of a Gauss-Newton matrix of low rank plus l2, and the matrix."""
    p = nets.problem("mlp")

    @tiny.quick_jit
    def both(params, data, key):
        operator = gauss_newton(p.objective, params, data)
        return spectral_density(key, operator, probes=60, steps=12), dense(operator)

    spectrum, matrix = both(p.params, p.data, jax.random.key(3))
    return spectrum, np.linalg.eigvalsh(matrix)


MOMENTS = {
    "trace": (lambda x: x, 0.05),
    "square": (jnp.square, 0.1),
    "cube": (lambda x: x**3, 0.2),
    "log": (jnp.log, 0.02),
    "inverse": (lambda x: 1 / x, 0.02),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_sums_over_the_spectrum_lie_within_their_errors(curved, name):
    spectrum, values = curved
    function, tight = MOMENTS[name]
    found, exact = spectral_sum(spectrum, function), np.sum(function(values))
    assert np.abs(found.value - exact) < 4 * found.stderr
    assert found.stderr < tight * np.abs(exact)


def test_trace_is_the_default(curved):
    spectrum, _ = curved
    assert spectral_sum(spectrum) == spectral_sum(spectrum, lambda x: x)


def test_low_moments_of_a_vector_are_exact():
    # Gauss quadrature of s nodes: zᵀ Aᵏ z to rounding for k < 2 s, from few steps.
    matrix = rotated(np.linspace(-1, 2, 20))
    spectrum = tiny.quick_jit(
        lambda m, k: spectral_density(k, symmetric(m), probes=2, steps=3)
    )(matrix, jax.random.key(4))
    for i, key in enumerate(jax.random.split(jax.random.key(4), 2)):
        (key,) = jax.random.split(key, 1)
        z = np.asarray(jax.random.rademacher(key, (20,), float))
        for k in range(7):
            found = 20 * np.sum(spectrum.weights[i] * spectrum.nodes[i] ** k)
            exact = z @ np.linalg.matrix_power(matrix, k) @ z
            close = np.isclose(found, exact, rtol=1e-9, atol=1e-9)
            assert close == (k < 6)


def test_density_integrates_to_one_and_sits_where_eigenvalues_are(curved):
    spectrum, values = curved
    grid = np.linspace(values[0] - 1, values[-1] + 1, 4001)
    density = np.asarray(tiny.quick_jit(density_on_grid)(spectrum, grid, 0.02))
    step = grid[1] - grid[0]
    np.testing.assert_allclose(density.sum() * step, 1, rtol=1e-6)
    # Most eigenvalues are l2 itself: their share within the noise of the probes.
    near = np.abs(grid - nets.L2) < 0.1
    share = np.mean(np.abs(values - nets.L2) < 0.05)
    np.testing.assert_allclose(density[near].sum() * step, share, atol=0.1)
    assert share > 0.5


def test_density_of_known_nodes_is_a_sum_of_bells():
    spectrum = Spectrum(
        jnp.array([[0.0, 1.0], [0.0, 2.0]]),
        jnp.array([[0.5, 0.5], [1, 0]]),
        jnp.ones(()),
    )
    found = density_on_grid(spectrum, jnp.array([0.0, 1.0]), 0.1)
    peak = 1 / (0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found, [0.75 * peak, 0.25 * peak], rtol=1e-12)


def test_vmap_over_models_and_single_precision():
    entries = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (2, 6)), jnp.float32)

    @tiny.quick_jit
    @jax.vmap
    def both(entries):
        operator, key = diagonal({"a": entries}), jax.random.key(0)
        spectrum = spectral_density(key, operator, probes=2, steps=6)
        return extreme_eigenvalues(key, operator, steps=6), spectral_sum(spectrum)

    ends, trace = both(entries)
    assert ends.largest.dtype == trace.value.dtype == jnp.float32
    np.testing.assert_allclose(ends.largest, entries.max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(ends.smallest, entries.min(axis=1), rtol=1e-4)
    np.testing.assert_allclose(trace.value, entries.sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("steps", [0, 13])
def test_more_steps_than_parameters_are_refused(steps):
    operator = symmetric(np.eye(12))
    with pytest.raises(ValueError, match=f"steps={steps} .* 12 parameters"):
        extreme_eigenvalues(jax.random.key(0), operator, steps=steps)
    with pytest.raises(ValueError, match="probes=1"):
        spectral_density(jax.random.key(0), operator, probes=1, steps=3)
