"""Any tree of inputs, weights of either sign, complex and half-precision parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from jax.flatten_util import ravel_pytree

from unlearn_jax import tree
from unlearn_jax.attribution.influence import influence_on_parameters
from unlearn_jax.curvature.contractions import along, gram, squared_norms
from unlearn_jax.curvature.diagonal import (
    empirical_fisher_diagonal,
    fisher_diagonal,
    gauss_newton_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.fisher import empirical_fisher, fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import mean_eigenvalue
from unlearn_jax.curvature.operator import dense
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.train.loss import cross_entropy, sequence_nll
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

RANDOM = np.random.default_rng(3)
PARAMS = {
    "w": jnp.asarray(RANDOM.standard_normal((4, 5))),
    "v": jnp.asarray(RANDOM.standard_normal((5, 3))),
}
COUNT = 6
ROWS = RANDOM.standard_normal((COUNT, 4))
LABELS = np.arange(COUNT) % 3


def net(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"]


MLP = Objective(net, cross_entropy)


def example_gradients(objective, params, batch):
    """(n, p), one example after another through plain reverse mode."""

    def loss(params, i):
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[i : i + 1], batch)
        return objective.example_losses(params, one)[0]

    count = len(batch.weights)
    return np.stack([ravel_pytree(jax.grad(loss)(params, i))[0] for i in range(count)])


PAIRS = {
    "tuple": ((ROWS, ROWS[::-1]), lambda p, x: net(p, x[0]) - net(p, x[1])),
    "dict": (
        {"left": ROWS, "right": ROWS[:, :3]},
        lambda p, x: net(p, x["left"]) * x["right"],
    ),
}


@pytest.mark.parametrize("count", [2, COUNT])
@pytest.mark.parametrize("kind", PAIRS)
def test_trees_of_inputs(kind, count):
    inputs, predict = PAIRS[kind]
    batch = Batch(*jax.tree.map(lambda x: x[:count], (inputs, LABELS, np.ones(COUNT))))
    objective = Objective(predict, cross_entropy)
    slopes = example_gradients(objective, PARAMS, batch)

    @tiny.quick_jit
    def found(params, batch):
        diagonal = empirical_fisher_diagonal(objective, params, batch, batch_size=2)
        return diagonal, dense(empirical_fisher(objective, params, batch))

    diagonal, matrix = found(PARAMS, batch)
    np.testing.assert_allclose(
        ravel_pytree(diagonal)[0], np.mean(slopes**2, 0), rtol=1e-10, atol=1e-15
    )
    np.testing.assert_allclose(
        matrix, slopes.T @ slopes / count, rtol=1e-10, atol=1e-14
    )


def test_trees_of_targets():
    def loss(outputs, targets):
        return targets["share"] * cross_entropy(outputs, targets["label"])

    share = RANDOM.uniform(1, 2, COUNT)
    objective = Objective(net, loss)
    batch = Batch(ROWS, {"label": LABELS, "share": share}, np.ones(COUNT))
    plain = Batch(ROWS, LABELS, share)

    @tiny.quick_jit
    def found(params, batch, plain):
        whole = gauss_newton_diagonal(objective, params, batch)
        return whole, gauss_newton_diagonal(MLP, params, plain)

    got, expected = found(PARAMS, batch, plain)
    assert_trees_close(got, tree.scale(np.mean(share), expected), rtol=1e-10)


SIGNED = np.array([1.0, 0.5, -1.0, 0.0, 2.0, -0.25])


def test_negative_weights_are_taken_off():
    batch = Batch(ROWS, LABELS, SIGNED)
    slopes = example_gradients(MLP, PARAMS, batch)
    expected = (SIGNED[:, None] * slopes).T @ slopes / SIGNED.sum()

    @tiny.quick_jit
    def found(params, batch):
        return (
            dense(empirical_fisher(MLP, params, batch)),
            ravel_pytree(empirical_fisher_diagonal(MLP, params, batch, batch_size=2))[
                0
            ],
            dense(gauss_newton(MLP, params, batch)),
            dense(fisher(MLP, params, batch)),
        )

    matrix, diagonal, bend, labels = found(PARAMS, batch)
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(bend, labels, rtol=1e-9, atol=1e-13)
    alone = batch._replace(weights=np.where(np.arange(COUNT) == 2, -1.0, 0.0))
    # A negative mass divides as any other.
    only = found(PARAMS, alone)[1]
    np.testing.assert_allclose(only, slopes[2] ** 2, rtol=1e-9, atol=1e-15)


QUANTITIES = {
    "risk": lambda b: MLP.risk(PARAMS, b),
    "diagonal": lambda b: tree.norm(empirical_fisher_diagonal(MLP, PARAMS, b)),
    "bend": lambda b: tree.norm(gauss_newton_diagonal(MLP, PARAMS, b)),
    "hessian": lambda b: tree.norm(hessian(MLP, PARAMS, b)(PARAMS)),
    "gauss_newton": lambda b: tree.norm(gauss_newton(MLP, PARAMS, b)(PARAMS)),
    "fisher": lambda b: tree.norm(fisher(MLP, PARAMS, b)(PARAMS)),
    "kfac": lambda b: mean_eigenvalue(kfac(None, MLP, PARAMS, b)),
}


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_derivative_by_a_weight_of_zero_is_that_examples_own(quantity):
    weights = np.abs(SIGNED)

    def value(weights):
        return QUANTITIES[quantity](Batch(ROWS, LABELS, weights))

    both = tiny.quick_jit(jax.value_and_grad(value))
    _, slope = both(weights)
    step = np.zeros(COUNT)
    step[3] = 1e-5
    expected = (both(weights + step)[0] - both(weights - step)[0]) / 2e-5
    np.testing.assert_allclose(slope[3], expected, rtol=1e-6)


def fourier(params, inputs):
    """A net with complex parameters and real outputs."""
    mixed = inputs @ params["c"]
    return jnp.real(mixed) + jnp.abs(mixed) ** 2


COMPLEX = {
    "c": jnp.asarray(
        RANDOM.standard_normal((4, 3)) + 1j * RANDOM.standard_normal((4, 3))
    )
}


def as_complex(real):
    return {"c": real["re"] + 1j * real["im"]}


def test_complex_parameters_are_their_real_and_imaginary_parts():
    objective = Objective(fourier, cross_entropy, 0.1)
    twin = Objective(lambda p, x: fourier(as_complex(p), x), cross_entropy, 0.1)
    parts = {"re": jnp.real(COMPLEX["c"]), "im": jnp.imag(COMPLEX["c"])}
    batch = Batch(ROWS, LABELS, np.abs(SIGNED))
    vector = {"re": parts["im"] + 1, "im": parts["re"] - 2}

    def both(objective, params, vector):
        operators = [
            build(objective, params, batch)(vector)
            for build in (hessian, gauss_newton, fisher, empirical_fisher)
        ]
        moved = influence_on_parameters(objective, params, batch, SIGNED, lambda v: v)
        taped, found = loss_gradients(objective, params, batch)
        numbers = gram(found, found), squared_norms(found), along(taped, found, vector)
        squares = empirical_fisher_diagonal(objective, params, batch)
        return (*operators, moved), numbers, squares

    got = [
        tiny.quick_jit(lambda p, v, o=o: both(o, p, v))(params, v)
        for o, params, v in (
            (objective, COMPLEX, as_complex(vector)),
            (twin, parts, vector),
        )
    ]
    for one, other in zip(got[0][0], got[1][0], strict=True):
        assert_trees_close(one, as_complex(other), rtol=1e-9, atol=1e-13)
    for one, other in zip(got[0][1], got[1][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)
    squares = got[1][2]
    np.testing.assert_allclose(
        got[0][2]["c"], squares["re"] + squares["im"], rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened_before_sums_and_eigenvalues(dtype):
    batch = Batch(ROWS, LABELS, np.abs(SIGNED))

    @tiny.quick_jit
    def found(params, batch):
        state = kfac(None, MLP, params, batch, labels="exact")
        return (
            mean_eigenvalue(state),
            tree.norm(gauss_newton_diagonal(MLP, params, batch)),
            tree.norm(fisher_diagonal(MLP, params, batch)),
            tree.norm(empirical_fisher_diagonal(MLP, params, batch)),
        )

    def cast(values):
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), values)

    half = found(cast(PARAMS), batch._replace(inputs=cast(ROWS)))
    wide = found(PARAMS, batch)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(half, wide, rtol=10 * eps)


def test_many_weights_of_half_precision_do_not_overflow():
    count = 70_000
    inputs = jnp.asarray(np.resize(ROWS, (count, 4)), jnp.float16)
    batch = Batch(inputs, np.resize(LABELS, count), jnp.ones(count, jnp.float16))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), PARAMS)
    single = batch._replace(inputs=inputs.astype(jnp.float32))
    both = [MLP.risk(params, b) for b in (batch, single)]
    np.testing.assert_allclose(*both, rtol=1e-3)
    assert float(both[0]) > 0.1


@pytest.mark.parametrize("tokens", [1, 4])
def test_drawn_labels_of_sequences_estimate_the_gauss_newton_matrix(tokens):
    def predict(params, inputs):
        return jnp.tanh(params["e"][inputs]) @ params["h"]

    objective = Objective(predict, sequence_nll)
    params = {
        "e": jnp.asarray(RANDOM.standard_normal((4, 3))),
        "h": jnp.asarray(RANDOM.standard_normal((3, 4))),
    }
    targets = RANDOM.integers(0, 4, (COUNT, tokens))
    targets[1, 1:] = -1  # ignored tokens make the mean one over fewer
    batch = Batch(RANDOM.integers(0, 4, (COUNT, tokens)), targets, np.abs(SIGNED))

    @tiny.quick_jit
    def draw(key, params, batch):
        state = ekfac(key, objective, params, batch, labels="sampled", samples=8)
        diagonal = sampled_fisher_diagonal(key, objective, params, batch, samples=8)
        operator = sampled_fisher(key, objective, params, batch, samples=8)
        return (
            mean_eigenvalue(state) * tree.size(params),
            ravel_pytree(diagonal)[0].sum(),
            jnp.trace(dense(operator)),
        )

    exact = float(jnp.trace(dense(gauss_newton(objective, params, batch))))
    keys = jax.random.split(jax.random.key(0), 40)
    found = np.stack([np.stack(draw(key, params, batch)) for key in keys])
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(keys))
    assert np.all(np.abs(found.mean(axis=0) - exact) < 4 * errors)
    assert np.all(errors < 0.05 * exact)  # tight enough to tell T from 1
