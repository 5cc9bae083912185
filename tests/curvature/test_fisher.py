"""Fisher matrices against listed labels, stacked gradients and each other."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import tiny

from unlearn_jax.curvature.fisher import empirical_fisher, fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import cross_entropy, kl_divergence, squared_error

CLASSIFIERS = [name for name in nets.NAMES if name != "sequence"]


@pytest.mark.parametrize("name", nets.NAMES)
def test_fishers_equal_dense_matrices(name):
    p = nets.problem(name)

    @tiny.quick_jit
    def both(params, data):
        operators = (
            fisher(p.objective, params, data),
            empirical_fisher(p.objective, params, data),
        )
        return tuple(map(dense, operators))

    expected, empirical = both(p.params, p.data)  # absent examples hold NaN
    listed = nets.assemble(name, nets.label_covariances(name))
    np.testing.assert_allclose(expected, listed, rtol=1e-9, atol=1e-12)
    slopes = nets.example_gradients(name)
    stacked = (p.shares[:, None] * slopes).T @ slopes
    np.testing.assert_allclose(empirical, stacked, rtol=1e-9, atol=1e-12)
    for matrix in (expected, empirical):
        np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12, atol=1e-14)
        assert np.linalg.eigvalsh(matrix)[0] > -1e-12
    assert np.abs(expected - empirical).max() > 1e-3


@pytest.fixture(scope="module")
def mlp():
    return nets.problem("mlp")


def matrix(build, p, objective=None, data=None):
    objective = p.objective if objective is None else objective
    program = tiny.quick_jit(lambda a, d: dense(build(objective, a, d)))
    return np.asarray(program(p.params, p.data if data is None else data))


def without_l2(build, p, **options):
    return matrix(build, p, **options) - nets.L2 * np.eye(p.size)


@pytest.mark.parametrize("name", ["softmax", "norm"])
def test_fisher_is_gauss_newton_without_l2_for_softmax(name):
    p = nets.problem(name)
    np.testing.assert_allclose(
        matrix(fisher, p), without_l2(gauss_newton, p), rtol=1e-9, atol=1e-12
    )


def test_fisher_is_gauss_newton_without_l2_for_squared_error(mlp):
    objective = mlp.objective._replace(loss=squared_error)
    data = mlp.data._replace(targets=np.ones((nets.COUNT, 3)))
    np.testing.assert_allclose(
        matrix(fisher, mlp, objective, data),
        without_l2(gauss_newton, mlp, objective=objective, data=data),
        rtol=1e-9,
        atol=1e-12,
    )


def test_fisher_of_sequences_is_gauss_newton_of_the_mean_over_tokens():
    p = nets.problem("sequence")
    np.testing.assert_allclose(
        matrix(fisher, p), without_l2(gauss_newton, p), rtol=1e-9, atol=1e-13
    )


def test_unknown_classification_loss_is_listed_class_by_class(mlp):
    wrapped = mlp.objective._replace(loss=lambda o, y: cross_entropy(o, y))
    np.testing.assert_allclose(
        matrix(fisher, mlp, wrapped), matrix(fisher, mlp), rtol=1e-10, atol=1e-14
    )
    half = mlp.objective._replace(loss=lambda o, y: 0.5 * cross_entropy(o, y))
    np.testing.assert_allclose(
        matrix(fisher, mlp, half), matrix(fisher, mlp) / 4, rtol=1e-10, atol=1e-14
    )


def within_errors(draws, expected):
    """vᵀ F v for a few v lies within 4 standard errors; returns the relative errors."""
    vectors = np.random.default_rng(0).standard_normal((8, len(expected)))
    along = np.einsum("vp,spq,vq->sv", vectors, draws, vectors)
    exact = np.einsum("vp,pq,vq->v", vectors, expected, vectors)
    error = along.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert np.all(np.abs(along.mean(axis=0) - exact) < 4 * error)
    return error / exact


def sampled_matrices(p, objective, data, keys, samples):
    def one(key, params, data):
        build = functools.partial(sampled_fisher, key, samples=samples)
        return dense(build(objective, params, data))

    program = tiny.quick_jit(jax.vmap(one, (0, None, None)))
    return np.asarray(program(keys, p.params, data))


@pytest.mark.parametrize("name", ["softmax", "sequence"])
def test_sampled_fisher_is_unbiased_and_narrows(name):
    p = nets.problem(name)
    keys = jax.random.split(jax.random.key(1), 200)
    expected = nets.assemble(name, nets.label_covariances(name))
    few = within_errors(sampled_matrices(p, p.objective, p.data, keys, 1), expected)
    many = within_errors(sampled_matrices(p, p.objective, p.data, keys, 16), expected)
    assert 0.2 < np.median(many / few) < 0.3  # 1 / sqrt(16)
    assert few.max() < 0.2  # tight enough to fail


def test_sampled_fisher_of_squared_error_is_unbiased():
    p = nets.problem("softmax")
    objective = p.objective._replace(loss=squared_error)
    data = p.data._replace(targets=np.full((nets.COUNT, 3), 7.0))
    keys = jax.random.split(jax.random.key(2), 200)
    draws = sampled_matrices(p, objective, data, keys, 4)
    assert within_errors(draws, matrix(fisher, p, objective, data)).max() < 0.1


def test_one_matrix_in_every_product(mlp):
    def twice(params, data, v):
        operator = sampled_fisher(
            jax.random.key(0), mlp.objective, params, data, samples=3
        )
        return operator(v), operator(v)

    first, second = tiny.quick_jit(twice)(mlp.params, mlp.data, mlp.vector())
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_no_gradient_per_example_is_formed(mlp):
    builds = {
        "fisher": fisher,
        "empirical": empirical_fisher,
        "sampled": functools.partial(sampled_fisher, jax.random.key(0), samples=5),
    }
    for name, build in builds.items():
        operator = build(mlp.objective, mlp.params, mlp.clean)
        linear = jax.make_jaxpr(operator.matvec)(mlp.vector())
        assert nets.dot_generals(linear) == 6, name  # those of Gauss-Newton
        sizes = [v.aval.size for e in linear.eqns for v in e.outvars]
        assert max(sizes) < nets.COUNT * mlp.size / 2, name


def test_what_has_no_label_distribution_is_refused(mlp):
    real = mlp.clean._replace(targets=np.zeros((nets.COUNT, 3)))
    objective = mlp.objective._replace(loss=kl_divergence)
    sampled = functools.partial(sampled_fisher, jax.random.key(0))
    for build in (fisher, functools.partial(sampled, samples=2)):
        with pytest.raises(ValueError, match=r"float64\[9, 3\].* kl_divergence"):
            build(objective, mlp.params, real)
    with pytest.raises(ValueError, match="samples=0"):
        sampled(mlp.objective, mlp.params, mlp.clean, samples=0)
    p = nets.problem("sequence")
    strange = p.objective._replace(loss=lambda o, y: jnp.zeros(len(y)))
    with pytest.raises(ValueError, match=r"expected \(n, k\)"):
        fisher(strange, p.params, p.clean)
