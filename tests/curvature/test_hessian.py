"""Hessian products against ``jax.hessian``, their laws, and what they recompute."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import block, dense
from unlearn_jax.data.batch import take


@pytest.mark.parametrize("name", nets.NAMES)
def test_hessian_equals_dense_hessian(name):
    p = nets.problem(name)

    @tiny.quick_jit
    def both(params, data):
        kept = hessian(p.objective, params, data)
        again = hessian(p.objective, params, data, remat=True)
        return dense(kept), dense(again)

    kept, again = both(p.params, p.data)  # absent examples hold NaN
    expected = nets.dense_hessian(name)
    np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(again, kept, rtol=1e-12, atol=1e-14)
    assert np.linalg.eigvalsh(expected)[-1] > 1.1 * nets.L2  # there is something in it


@pytest.fixture(scope="module")
def mlp():
    p = nets.problem("mlp")

    def product(params, data, vector):
        return hessian(p.objective, params, data)(vector)

    p.product = tiny.quick_jit(product)
    p.raw = product
    return p


def test_symmetry_and_linearity(mlp):
    u, v = mlp.vector(1), mlp.vector(2)
    hu, hv = (mlp.product(mlp.params, mlp.data, w) for w in (u, v))
    assert_trees_close(tree.dot(u, hv), tree.dot(v, hu), rtol=1e-12)
    combined = mlp.product(mlp.params, mlp.data, tree.axpy(-1.7, u, v))
    assert_trees_close(combined, tree.axpy(-1.7, hu, hv), rtol=1e-9, atol=1e-12)


def test_totals_of_two_halves_add(mlp):
    v = mlp.vector()
    masks = np.arange(nets.COUNT) < 5, np.arange(nets.COUNT) >= 5
    weights = mlp.data.weights
    parts = [
        tree.scale(
            (weights * mask).sum() / weights.sum(),
            mlp.product(mlp.params, mlp.data._replace(weights=weights * mask), v),
        )
        for mask in masks
    ]
    whole = mlp.product(mlp.params, mlp.data, v)
    assert_trees_close(tree.add(*parts), whole, rtol=1e-9, atol=1e-12)


def test_weight_zero_is_the_same_as_left_out(mlp):
    v = mlp.vector()
    masked = mlp.product(mlp.params, mlp.data, v)
    gathered = mlp.raw(mlp.params, mlp.present, v)
    assert_trees_close(masked, gathered, rtol=1e-9, atol=1e-12)
    assert not np.all(np.isfinite(take(mlp.data, nets.ABSENT).inputs))


def test_without_any_weight_only_l2_is_left(mlp):
    v = mlp.vector()
    nothing = mlp.data._replace(weights=np.zeros(nets.COUNT))
    found = mlp.product(mlp.params, nothing, v)
    assert_trees_close(found, tree.scale(nets.L2, v), rtol=1e-12)


def test_vmap_over_models_weights_and_vectors(mlp):
    stacked = tree.stack([mlp.params, tree.scale(0.5, mlp.params)])
    weights = np.stack([mlp.data.weights, mlp.data.weights[::-1]])
    vectors = tree.stack([mlp.vector(1), mlp.vector(2)])

    def one(params, weights, vectors, inputs, targets):
        data = mlp.data._replace(inputs=inputs, targets=targets, weights=weights)
        return block(hessian(mlp.objective, params, data), vectors)

    fields = mlp.clean.inputs, mlp.clean.targets
    many = tiny.quick_jit(jax.vmap(one, (0, 0, None, None, None)))
    found = many(stacked, weights, vectors, *fields)
    for i, j in [(0, 0), (1, 1)]:
        data = mlp.clean._replace(weights=weights[i])
        alone = mlp.product(tree.member(stacked, i), data, tree.member(vectors, j))
        assert_trees_close(
            tree.member(tree.member(found, i), j), alone, rtol=1e-9, atol=1e-12
        )


def test_a_new_batch_of_the_same_shape_compiles_nothing(mlp):
    traces = []

    @tiny.quick_jit
    def product(params, data, vector):
        traces.append(1)
        return hessian(mlp.objective, params, data)(vector)

    first = product(mlp.params, mlp.data, mlp.vector())
    moved = mlp.clean._replace(inputs=mlp.clean.inputs + 1)
    second = product(mlp.params, moved, mlp.vector())
    assert len(traces) == 1
    assert float(tree.norm(tree.subtract(first, second))) > 1e-3


def test_a_product_holds_no_forward_pass(mlp):
    # Two layers: 2 matrix products forward and 3 back, since the data need no slope.
    # Their tangents are 1 + 2 and 2 + 2 + 1, and nothing else is left in a product.
    operator = hessian(mlp.objective, mlp.params, mlp.clean)
    linear = jax.make_jaxpr(operator.matvec)(mlp.vector())
    whole = jax.make_jaxpr(mlp.raw)(mlp.params, mlp.clean, mlp.vector())
    assert nets.dot_generals(linear) == 8
    assert nets.dot_generals(whole) == 8 + 5
    assert all(word in str(whole) for word in (" exp ", " tanh "))
    assert not any(word in str(linear) for word in (" exp ", " log ", " tanh "))


def test_in_a_loop_the_linearisation_stays_outside(mlp):
    def loop(params, data, vector):
        operator = hessian(mlp.objective, params, data)
        return jax.lax.fori_loop(0, 3, lambda i, v: operator(v), vector)

    program = jax.make_jaxpr(loop)(mlp.params, mlp.clean, mlp.vector())
    (scan,) = [e for e in program.eqns if e.primitive.name == "scan"]
    operator = hessian(mlp.objective, mlp.params, mlp.clean)
    linear = jax.make_jaxpr(operator.matvec)(mlp.vector())
    assert nets.dot_generals(scan.params["jaxpr"]) == nets.dot_generals(linear)
    assert " tanh " in str(program)
    assert " tanh " not in str(scan.params["jaxpr"])


def test_dtypes_are_those_of_the_parameters():
    learner = tiny.learner("mlp", jnp.float32)
    params = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    p = nets.problem("mlp")
    single = tiny.examples(np.float32)

    def product(params, vector):
        return hessian(p.objective, params, single)(vector)

    assert jax.eval_shape(product, params, params) == params
