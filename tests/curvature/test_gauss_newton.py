"""Gauss-Newton products against dense Jacobians, for every loss of the house."""

import functools

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import dense_gauss_newton, gauss_newton
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train import loss


@pytest.mark.parametrize("name", nets.NAMES)
def test_gauss_newton_equals_dense_jacobians(name):
    p = nets.problem(name)

    @tiny.quick_jit
    def both(params, data):
        kept = gauss_newton(p.objective, params, data)
        again = gauss_newton(p.objective, params, data, remat=True)
        return dense(kept), dense(again)

    kept, again = both(p.params, p.data)  # absent examples hold NaN
    middle = nets.loss_hessians(name, p.objective.loss, p.present.targets)
    expected = nets.assemble(name, middle) + nets.L2 * np.eye(p.size)
    np.testing.assert_allclose(kept, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(again, kept, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(kept, kept.T, rtol=1e-12, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(kept)
    assert eigenvalues[0] > nets.L2 - 1e-12  # convex losses: never below l2
    assert eigenvalues[-1] > 1.1 * nets.L2


@pytest.mark.parametrize("batch_size", [2, 16])
def test_the_dense_one_is_the_same_for_any_batch(batch_size):
    p = nets.problem("mlp")

    @tiny.quick_jit
    def ours(params, data):
        size = {"batch_size": batch_size}
        return dense_gauss_newton(p.objective, params, data, **size)

    middle = nets.loss_hessians("mlp", p.objective.loss, p.present.targets)
    expected = nets.assemble("mlp", middle) + nets.L2 * np.eye(p.size)
    np.testing.assert_allclose(ours(p.params, p.data), expected, rtol=1e-9, atol=1e-12)


LOSSES = {
    "squared_error": (loss.squared_error, "real"),
    "squared_norm": (loss.squared_norm, "real"),
    "kl_divergence": (loss.kl_divergence, "log"),
    "warm_kl": (functools.partial(loss.kl_divergence, temperature=2.0), "log"),
    "quartic": (lambda o, y: jnp.sum((o - y) ** 4, axis=1) * o[:, 0], "real"),
}


@pytest.mark.parametrize("loss_name", LOSSES)
def test_any_loss_of_the_outputs_will_do(loss_name):
    function, kind = LOSSES[loss_name]
    p = nets.problem("mlp")
    targets = np.random.default_rng(0).standard_normal((nets.COUNT, 3))
    if kind == "log":
        targets = np.log(np.exp(targets) / np.exp(targets).sum(1, keepdims=True))
    objective = p.objective._replace(loss=function)
    product = tiny.quick_jit(lambda a, d: dense(gauss_newton(objective, a, d)))
    found = product(p.params, p.data._replace(targets=targets))
    present = targets[p.data.weights > 0]
    middle = nets.loss_hessians("mlp", function, present)
    expected = nets.assemble("mlp", middle) + nets.L2 * np.eye(p.size)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_linear_model_has_no_other_curvature():
    p = nets.problem("softmax")
    product = tiny.quick_jit(lambda a, d: dense(gauss_newton(p.objective, a, d)))
    found = product(p.params, p.data)
    np.testing.assert_allclose(
        found, nets.dense_hessian("softmax"), rtol=1e-9, atol=1e-12
    )


@pytest.fixture(scope="module")
def mlp():
    p = nets.problem("mlp")
    p.raw = lambda a, d, v: gauss_newton(p.objective, a, d)(v)
    p.traces = []

    def product(params, data, vector):
        p.traces.append(1)
        return p.raw(params, data, vector)

    p.product = tiny.quick_jit(product)
    return p


def test_totals_add_and_shapes_compile_once(mlp):
    v, weights = mlp.vector(), mlp.data.weights
    masks = np.arange(nets.COUNT) < 5, np.arange(nets.COUNT) >= 5
    parts = [
        tree.scale(
            (weights * mask).sum() / weights.sum(),
            mlp.product(mlp.params, mlp.data._replace(weights=weights * mask), v),
        )
        for mask in masks
    ]
    whole = mlp.product(mlp.params, mlp.data, v)
    assert_trees_close(tree.add(*parts), whole, rtol=1e-9, atol=1e-12)
    nothing = mlp.product(mlp.params, mlp.data._replace(weights=0 * weights), v)
    assert_trees_close(nothing, tree.scale(nets.L2, v), rtol=1e-12)
    assert len(mlp.traces) == 1


def test_a_product_holds_no_forward_pass(mlp):
    operator = gauss_newton(mlp.objective, mlp.params, mlp.clean)
    linear = jax.make_jaxpr(operator.matvec)(mlp.vector())
    whole = jax.make_jaxpr(mlp.raw)(mlp.params, mlp.clean, mlp.vector())
    # Two layers: tangents 1 + 2, transposed 2 + 1; the forward pass has 2.
    assert nets.dot_generals(linear) == 6
    assert nets.dot_generals(whole) == 6 + 2
    assert all(word in str(whole) for word in (" exp ", " tanh "))
    assert not any(word in str(linear) for word in (" exp ", " log ", " tanh "))


def test_rematerialised_products_do_recompute(mlp):
    operator = gauss_newton(mlp.objective, mlp.params, mlp.clean, remat=True)
    linear = jax.make_jaxpr(operator.matvec)(mlp.vector())
    assert " tanh " in str(linear)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_are_those_of_the_parameters(dtype):
    learner = tiny.learner("mlp", dtype)
    params = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    p = nets.problem("mlp")
    data = tiny.examples(np.float32)  # weights wider than bfloat16

    def product(params, vector):
        return gauss_newton(p.objective, params, data)(vector)

    assert jax.eval_shape(product, params, params) == params
