"""The sum over batches equals the operator of all examples at once."""

import functools

import jax
import nets
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.fisher import empirical_fisher, fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.parallel.mesh import data_mesh

BUILDS = {
    "hessian": hessian,
    "remat": functools.partial(hessian, remat=True),
    "gauss_newton": gauss_newton,
    "fisher": fisher,
    "empirical_fisher": empirical_fisher,
}


@pytest.fixture(scope="module")
def mlp():
    return nets.problem("mlp")


@pytest.mark.parametrize("build", BUILDS)
def test_equal_to_all_at_once(mlp, build):
    build = BUILDS[build]

    @tiny.quick_jit
    def both(params, data):
        whole = build(mlp.objective, params, data)
        parts = over_batches(build, mlp.objective, params, data, batch_size=4)
        return dense(whole), dense(parts)

    whole, parts = both(mlp.params, mlp.data)  # 9 = 4 + 4 + 1, three of them NaN
    np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["norm", "sequence"])
def test_equal_for_other_nets(name):
    p = nets.problem(name)

    def product(params, data, v):
        return over_batches(gauss_newton, p.objective, params, data, batch_size=2)(v)

    whole = tiny.quick_jit(lambda a, d, v: gauss_newton(p.objective, a, d)(v))
    args = p.params, p.data, p.vector()
    assert_trees_close(
        tiny.quick_jit(product)(*args), whole(*args), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("batch_size", [1, 3, 9, 64])
def test_no_batch_size_matters(mlp, batch_size):
    @tiny.quick_jit
    def product(params, data, v):
        operator = over_batches(
            gauss_newton, mlp.objective, params, data, batch_size=batch_size
        )
        return operator(v)

    args = mlp.params, mlp.data, mlp.vector()
    whole = gauss_newton(mlp.objective, *args[:2])(args[2])
    assert_trees_close(product(*args), whole, rtol=1e-10, atol=1e-13)
    empty = mlp.data._replace(weights=0 * mlp.data.weights)
    nothing = product(mlp.params, empty, args[2])
    assert_trees_close(nothing, tree.scale(nets.L2, args[2]), rtol=1e-12)


def test_mean_of_batch_means_would_differ(mlp):
    # The comparison above can fail: batches weigh differently.
    weights = mlp.data.weights
    means = [weights[i : i + 4].sum() for i in (0, 4, 8)]
    assert max(means) > 1.2 * (sum(means) / 3)


def test_one_compiled_loop_and_no_second_compilation(mlp):
    traces = []

    def counted(objective, params, batch):
        traces.append(batch.weights.shape)
        return gauss_newton(objective, params, batch)

    @tiny.quick_jit
    def product(params, data, v):
        return over_batches(counted, mlp.objective, params, data, batch_size=2)(v)

    product(mlp.params, mlp.data, mlp.vector())
    first = len(traces)
    assert set(traces) == {(2,)}
    assert first <= 2  # once for the shapes, once for the loop: not once per batch
    product(mlp.params, mlp.clean, mlp.vector())
    assert len(traces) == first


def test_vmap_over_vectors(mlp):
    @tiny.quick_jit
    def products(params, data, vectors):
        operator = over_batches(hessian, mlp.objective, params, data, batch_size=4)
        return jax.vmap(operator)(vectors)

    vectors = tree.stack([mlp.vector(1), mlp.vector(2)])
    found = products(mlp.params, mlp.data, vectors)
    alone = hessian(mlp.objective, mlp.params, mlp.data)(mlp.vector(2))
    assert_trees_close(tree.member(found, 1), alone, rtol=1e-10, atol=1e-13)


def test_drawn_labels_under_batches_and_a_mesh_of_one(mlp):
    def product(params, data, v, key):
        build = functools.partial(sampled_fisher, key, samples=2)
        parts = [
            over_batches(build, mlp.objective, params, data, batch_size=4, mesh=mesh)
            for mesh in (None, data_mesh(1))
        ]
        return tuple(operator(v) for operator in parts)

    key = jax.random.key(0)
    here, meshed = tiny.quick_jit(product)(mlp.params, mlp.data, mlp.vector(), key)
    assert_trees_close(here, meshed, rtol=1e-12)
    assert tree.all_finite(here)
