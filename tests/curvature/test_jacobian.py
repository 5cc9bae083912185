"""Products with the Jacobian and the tangent kernel against the dense Jacobian."""

import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
import tiny
from jax.extend.core import jaxprs_in_params

from unlearn_jax.curvature.jacobian import (
    jacobian_product,
    tangent_kernel,
    tangent_kernel_operator,
)
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective


def dense_kernel(name):
    _, jacobian = nets.outputs_and_jacobian(name)
    return np.einsum("icp,jdp->ijcd", jacobian, jacobian)


@pytest.mark.parametrize("name", nets.NAMES)
def test_products_and_kernel_equal_the_dense_jacobian(name):
    p = nets.problem(name)
    outputs, jacobian = nets.outputs_and_jacobian(name)
    v = p.vector()
    u = np.random.default_rng(1).standard_normal(outputs.shape)

    @tiny.quick_jit
    def everything(params, inputs, v, u):
        outputs, jvp, vjp = jacobian_product(p.objective, params, inputs)
        kernel = tangent_kernel(p.objective, params, inputs, inputs[:5], batch_size=2)
        return outputs, jvp(v), vjp(u), kernel

    found = everything(p.params, p.present.inputs, v, u)
    flat = np.random.default_rng(0).standard_normal(p.size)
    np.testing.assert_allclose(found[0], outputs, rtol=1e-12)
    np.testing.assert_allclose(
        np.asarray(found[1]).reshape(len(u), -1), jacobian @ flat, rtol=1e-9, atol=1e-12
    )
    expected = p.unravel(np.einsum("nk,nkp->p", u.reshape(len(u), -1), jacobian))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12),
        found[2],
        expected,
    )
    np.testing.assert_allclose(
        found[3], dense_kernel(name)[:, :5], rtol=1e-9, atol=1e-12
    )


@pytest.fixture(scope="module")
def mlp():
    return nets.problem("mlp")


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_trace_form_of_one_set_is_symmetric(mlp, batch_size):
    traces = tiny.quick_jit(
        lambda a, x: tangent_kernel(
            mlp.objective, a, x, batch_size=batch_size, trace=True
        )
    )(mlp.params, mlp.present.inputs)
    expected = np.einsum("ijcc->ij", dense_kernel("mlp"))
    np.testing.assert_allclose(traces, expected, rtol=1e-9)
    np.testing.assert_allclose(traces, traces.T, rtol=1e-12)


def test_the_operator_is_the_kernel(mlp):
    inputs = mlp.present.inputs
    matrix = tiny.quick_jit(
        lambda a, x: dense(tangent_kernel_operator(mlp.objective, a, x))
    )(mlp.params, inputs)
    n, k = nets.outputs_and_jacobian("mlp")[0].shape
    expected = dense_kernel("mlp").transpose(0, 2, 1, 3).reshape(n * k, n * k)
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-12)
    operator = tangent_kernel_operator(mlp.objective, mlp.params, inputs)
    with pytest.raises(ValueError, match=r"float64\[2\]"):
        operator(jnp.zeros(2))


@pytest.mark.parametrize("trace", [False, True])
def test_kernel_of_an_operation_that_cannot_be_mapped(trace):
    """Groups of rows, each with a matrix of its own: twice, one of them written out."""
    sizes = np.array([2, 1, 1])

    def grouped(p, x):
        groups = jnp.asarray(sizes, jnp.int32)
        rows = [jax.lax.ragged_dot(own, p["w"], groups) for own in x]
        return jnp.tanh(jnp.stack(rows)).sum(1)

    def written_out(p, x):
        matrices = p["w"][np.repeat(np.arange(3), sizes)]
        return jnp.tanh(jnp.einsum("nti,tio->nto", x, matrices)).sum(1)

    random = np.random.default_rng(0)
    params = {"w": jnp.asarray(random.standard_normal((3, 4, 2)))}
    inputs = jnp.asarray(random.standard_normal((3, 4, 4)))
    found, expected = (
        tangent_kernel(
            Objective(net, cross_entropy), params, inputs, batch_size=2, trace=trace
        )
        for net in (grouped, written_out)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_memory_is_that_of_a_block(mlp):
    inputs = np.zeros((200, tiny.FEATURES))

    def kernel(params, inputs):
        return tangent_kernel(
            mlp.objective, params, inputs, inputs[:20], batch_size=2, trace=True
        )

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (v.aval.size for v in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                yield from sizes(inner)

    largest = max(sizes(jax.make_jaxpr(kernel)(mlp.params, inputs).jaxpr))
    assert largest <= 200 * 2 * 3 * tiny.WIDTH  # tangents of the hidden layer
    assert largest < 200 * mlp.size


@pytest.mark.parametrize(
    "entrance", [jacobian_product, tangent_kernel, tangent_kernel_operator]
)
def test_what_has_no_jacobian_by_example_is_refused(mlp, entrance):
    inputs, name = np.zeros((3, tiny.FEATURES)), entrance.__name__
    with pytest.raises(ValueError, match=rf"{name} got no example at all \(n = 0\)"):
        entrance(mlp.objective, mlp.params, inputs[:0])
    with pytest.raises(ValueError, match=f"{name} got parameters without any array"):
        entrance(mlp.objective, {}, inputs)
    late = mlp.objective._replace(predict=lambda p, x: jnp.stack([x] * 4))
    with pytest.raises(ValueError, match=rf"{name}: .* \(4, 2, 5\) for 2 examples"):
        entrance(late, mlp.params, inputs)
