"""The problems of kfac-jax's tests: blocks of curvature, and what is recognised.

Its "ggn" and "fisher" are one matrix for these losses; its layer tags are the sites
that per-example gradients are read at.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table, refused
from small_nets import (
    Case,
    diagonal_blocks,
    exact,
    flat,
    labels,
    layers,
    logistic_loss,
    numbers,
    perceptron,
)
from tiny import quick_jit as quick

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import dense as formed
from unlearn_jax.curvature.diagonal import gauss_newton_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.jacobian import jacobian_product
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import Factors, eigendecompose
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.label_slopes import output_factors
from unlearn_jax.curvature.operator import dense
from unlearn_jax.curvature.per_example import formed_whole, loss_gradients
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

TABLE = Table(
    "kfac-jax",
    {
        "tests/test_utils.py::test_stable_sqrt": "a function of its own library",
        "tests/test_utils.py::test_rearrange": "a function of its own library",
        "tests/test_utils.py::test_in_pmap_outside_pmap": "devices are asked for by a "
        "mesh, never by pmap",
        "tests/test_optax_interface.py::test_block_diagonal_full": "there is no K-FAC "
        "optimiser: curvature is for removal and attribution",
    },
)
poses = TABLE.poses
tanh_net = functools.partial(perceptron, activation=jnp.tanh)
linear_net = functools.partial(perceptron, activation=lambda values: values)
N = 4


def close(actual, expected, rtol=1e-8, atol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def two_losses(outputs, targets):
    """Gaussian and Bernoulli targets of the same outputs."""
    return squared_error(outputs, targets) + logistic_loss(
        outputs, jax.nn.sigmoid(targets)
    )


def case_of(predict, loss, params, inputs, targets):
    data = Batch(inputs, targets, jnp.ones(len(inputs)))
    return Case(Objective(predict, loss), params, data)


def encoder(predict, loss, seed=0):
    """The inputs are the targets."""
    inputs = numbers(seed, N, 3)
    return case_of(predict, loss, layers(seed + 1, 3, 2, 3), inputs, inputs)


def convolve(values, kernel, strides=(1, 1), padding="SAME"):
    layout = jax.lax.conv_dimension_numbers(
        values.shape, kernel.shape, ("NHWC", "HWIO", "NHWC")
    )
    return jax.lax.conv_general_dilated(
        values, kernel, strides, padding, dimension_numbers=layout
    )


def image_net(params, inputs):
    values = jnp.tanh(convolve(inputs, params["first"]))
    return jnp.mean(values, axis=(1, 2)) @ params["head"]


def image_case(classes=3):
    params = {"first": numbers(2, 2, 2, 1, 2), "head": numbers(3, 2, classes)}
    return case_of(
        *(image_net, cross_entropy, params),
        *(numbers(4, N, 3, 3, 1), labels(5, N, classes=classes)),
    )


def stack_net(params, inputs):
    """Two equal layers, one after another, by a scan over their parameters."""

    def layer(values, own):
        return jnp.tanh(values @ own["kernel"] + own["bias"][None]), None

    values, _ = jax.lax.scan(layer, inputs, params["stack"])
    return values @ params["head"]


def stack_case():
    stack = {"kernel": numbers(6, 2, 3, 3), "bias": numbers(7, 2, 3)}
    params = {"stack": stack, "head": numbers(8, 3, 2)}
    data = numbers(9, N, 3), numbers(10, N, 2)
    return case_of(stack_net, squared_error, params, *data)


def recurrent_net(params, inputs):
    """A state over time; the last one is read."""

    def step(state, seen):
        return jnp.tanh(seen @ params["input"] + state @ params["state"]), None

    start = jnp.zeros((inputs.shape[0], 2), inputs.dtype)
    state, _ = jax.lax.scan(step, start, jnp.swapaxes(inputs, 0, 1))
    return state @ params["head"]


def recurrent_case():
    params = {
        "input": numbers(11, 3, 2),
        "state": numbers(12, 2, 2),
        "head": numbers(13, 2, 2),
    }
    data = numbers(14, N, 3, 3), numbers(15, N, 2)
    return case_of(recurrent_net, squared_error, params, *data)


CASES = {
    "encoder of two losses": lambda: encoder(tanh_net, two_losses),
    "encoder of rectifiers": lambda: encoder(perceptron, two_losses),
    "linear encoder": lambda: encoder(linear_net, squared_error),
    "convolution": image_case,
    "stack by scan": stack_case,
    "recurrent": recurrent_case,
}


@functools.cache
def curvature(name):
    """Matrices, diagonal, K-FAC and per-example gradients, in one program."""
    case = CASES[name]()

    def program(params, data):
        given = case.objective, params, data
        taped, gradients = loss_gradients(*given)
        state = kfac(None, *given, labels="exact")
        return {
            "gauss_newton": dense(gauss_newton(*given)),
            "hessian": dense(hessian(*given)),
            "diagonal": flat(gauss_newton_diagonal(*given)),
            "gradients": formed(taped, gradients),
            "state": state,
            "kfac": dense(kronecker_operator(state, params)),
            "inverse": flat(kronecker_inverse(state, damping=0.1)(params)),
            "exact": exact(Case(*given)),
        }

    return case, quick(program)(case.params, case.data)


def whole(name):
    _, found = curvature(name)
    close(found["gauss_newton"], found["exact"].gauss_newton)


def blocks(name):
    """The matrix of one layer's parameters alone is its block of the whole."""
    case, found = curvature(name)
    objective, params, data = case
    path = next(iter(params))
    rest = {key: value for key, value in params.items() if key != path}
    part = objective._replace(predict=lambda p, x: objective.predict({**p, **rest}, x))
    own = {path: params[path]}
    got = quick(lambda p: dense(gauss_newton(part, p, data)))(own)
    size = tree.size(own)
    close(got, found["exact"].gauss_newton[:size, :size])


def diagonal(name):
    _, found = curvature(name)
    close(found["diagonal"], jnp.diagonal(found["exact"].gauss_newton))


ESTIMATOR = "tests/test_estimator.py::test_"
for _name in ("encoder of two losses", "convolution"):
    TABLE.add(f"{_name}: whole matrix", f"{ESTIMATOR}explicit_exact_full", whole, _name)
    TABLE.add(f"{_name}: a block", f"{ESTIMATOR}block_diagonal_full", blocks, _name)
    TABLE.add(f"{_name}: diagonal", f"{ESTIMATOR}diagonal", diagonal, _name)


@poses(
    "Hessian's blocks of a piecewise linear net",
    f"{ESTIMATOR}block_diagonal_full_to_hessian",
)
def _():
    case, found = curvature("encoder of rectifiers")
    # Within one leaf such a net is linear.
    got = diagonal_blocks(found["hessian"], case.params)
    close(got, diagonal_blocks(found["gauss_newton"], case.params))
    close(found["hessian"], found["exact"].hessian)


@poses("K-FAC of a linear net", f"{ESTIMATOR}kronecker_factored")
def _():
    case, found = curvature("linear encoder")
    close(found["kfac"], diagonal_blocks(found["exact"].gauss_newton, case.params))


@poses("eigenvalues of the factors' product", f"{ESTIMATOR}eigenvalues")
def _():
    _, found = curvature("convolution")
    values = [b.values for b in eigendecompose(found["state"]).blocks]
    values = jnp.sort(jnp.concatenate([v.reshape(-1) for v in values]))
    close(values, jnp.linalg.eigvalsh(found["kfac"]), atol=1e-9)


@poses("products with the matrix and its inverse", f"{ESTIMATOR}matmul")
def _():
    case, found = curvature("convolution")
    matrix = found["kfac"] + 0.1 * jnp.eye(len(found["kfac"]))
    close(found["inverse"], jnp.linalg.solve(matrix, flat(case.params)))
    with refused("damping", "positive"):
        kronecker_inverse(found["state"], damping=0.0)


@poses("products with a root of the matrix", f"{ESTIMATOR}implicit_factor_products")
def _():
    case, found = curvature("convolution")
    objective, params, data = case

    def program(params, data):
        outputs, jvp, vjp = jacobian_product(objective, params, data.inputs)
        vectors, values = output_factors(objective, outputs, data.targets)
        root = jnp.sqrt(jnp.maximum(values, 0))[..., None] * vectors / np.sqrt(N)
        inside = jnp.einsum("rnk,nk->rn", root, jvp(params))
        return flat(vjp(jnp.einsum("rn,rnk->nk", inside, root)))

    got = quick(program)(params, data)
    close(got, found["exact"].gauss_newton @ flat(params))


def patches(strides, padding):
    """The inputs' factor is the second moment of the patches that a kernel sees."""
    kernel = numbers(16, 2, 3, 2, 2)

    def predict(params, inputs):
        values = convolve(inputs, params["kernel"], strides, padding)
        return values.reshape(values.shape[0], -1)

    inputs = numbers(17, N, 5, 4, 2)
    outputs = jax.eval_shape(predict, {"kernel": kernel}, inputs)
    case = case_of(
        predict, squared_error, {"kernel": kernel}, inputs, jnp.zeros(outputs.shape)
    )
    state = quick(lambda p, d: kfac(None, case.objective, p, d, labels="true"))(
        case.params, case.data
    )
    (block,) = state.blocks
    assert isinstance(block, Factors)
    seen = jax.lax.conv_general_dilated_patches(
        jnp.moveaxis(inputs, -1, 1), (2, 3), strides, padding
    )
    seen = jnp.moveaxis(seen, 1, -1).reshape(-1, 2, 6)  # positions, channels, places
    seen = jnp.swapaxes(seen, 1, 2).reshape(len(seen), -1)
    assert outputs.size == 2 * len(seen)
    close(
        jnp.sort(jnp.linalg.eigvalsh(block.inputs[0])),
        jnp.linalg.eigvalsh(seen.T @ seen / len(seen)),
    )


PATCHES = "tests/test_patches_second_moment.py::test_"
TABLE.add(
    "patches, one by one", f"{PATCHES}patches_moments_2d", patches, (1, 1), "SAME"
)
TABLE.add("patches, with strides", f"{PATCHES}num_locations", patches, (2, 1), "VALID")


def recognised(name):
    """Gradients of all weights stay factored, and are right; biases are formed."""
    case, found = curvature(name)
    taped = tape(case.objective.predict, case.params, case.data.inputs)
    assert all(path[-1] == "bias" for path in formed_whole(taped))
    slopes = jax.vmap(
        jax.grad(
            lambda p, *one: case.objective.total(
                p, Batch(*(leaf[None] for leaf in one))
            )
        ),
        in_axes=(None, 0, 0, 0),
    )
    expected = quick(slopes)(case.params, *case.data)
    jax.tree.map(close, found["gradients"], expected)


MATCHER = "tests/test_graph_matcher.py::test_auto_register_tags_jaxpr"
for _name in ("encoder of two losses", "convolution", "stack by scan", "recurrent"):
    TABLE.add(
        f"{_name}: matrices are recognised",
        *(MATCHER, recognised, _name),
        slow=_name in ("stack by scan", "recurrent"),
    )


@poses(
    "another size of batch", "tests/test_tracer.py::test_layer_tags_vjp_diff_batch_size"
)
def _():
    case, found = curvature("convolution")
    few = jax.tree.map(lambda leaf: leaf[1:3], case.data)

    def gradients(params, data):
        return formed(*loss_gradients(case.objective, params, data))

    got = quick(gradients)(case.params, few)
    expected = jax.tree.map(lambda leaf: leaf[1:3], found["gradients"])
    jax.tree.map(close, got, expected)


@poses(
    "second derivative of the loss, along a change of outputs",
    "tests/test_tracer.py::test_loss_tags_hvp",
)
def _():
    case, _ = curvature("encoder of two losses")
    outputs, along = numbers(18, N, 3), numbers(19, N, 3)
    vectors, values = quick(
        lambda o: output_factors(case.objective, o, case.data.targets)
    )(outputs)
    inside = jnp.einsum("rnk,nk->rn", vectors, along)
    got = jnp.einsum("rn,rn,rnk->nk", values, inside, vectors)

    def total(out):
        return jnp.sum(case.objective.loss(out, case.data.targets))

    close(got, jax.jvp(jax.grad(total), (outputs,), (along,))[1])


@TABLE.cases()
def test_kfac_jax(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
