"""Factored gradients and what is made of them, against the stacked gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from kind_parts import draw
from layer_kinds import COUNT, KINDS, OUTPUTS

from unlearn_jax.curvature import contractions, sketches
from unlearn_jax.curvature.gradient_gram import gradient_gram
from unlearn_jax.curvature.per_example import (
    Outer,
    Rows,
    Whole,
    formed_whole,
    loss_gradients,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

# What each parameter's gradients are kept as, in the order of the leaves.
FACTORED = {
    "dense": [Whole, Outer, Outer],
    "transposed dense": [Outer],
    "convolution": [Outer],
    "strided": [Outer],
    "dilated": [Outer],
    "grouped": [Outer],
    "depthwise": [Outer],
    "one-dimensional": [Outer],
    "transposed convolution": [Outer],
    "channels first": [Outer],
    "own patches": [Outer],
    "own strided": [Outer],
    "own winograd": [Whole],
    "embedding": [Rows, Outer],
    "tied embedding": [Whole],
    "used twice": [Whole],
    "low rank": [Outer, Outer, Outer],
    "merged low rank": [Whole, Whole, Whole],
    "attention": [Outer, Outer, Outer, Outer],
    "experts": [Outer],
    "learned start": [Whole, Whole, Outer, Outer],
    "scanned layers": [Whole, Outer],
    "weight norm": [Whole, Whole],
    "scaled embedding": [Rows],
    "scaled dense": [Outer, Outer],
    "scaled in a scan": [Outer, Whole],
    "scaled by another parameter": [Whole, Whole],
    "columns of a table": [Rows],
    "middle axis of a table": [Rows],
    "one token at a time": [Rows],
    "one token out of range": [Rows],
    "part of a row": [Whole],
}


# Flax computes the softmax of its attention in float32.
TOLERANCE = {"multi-head attention": 1e-6}
# At XLA's lowest optimisation level the gradient of this net is NaN on CPU.
JIT = {"resnet9": tiny.full_jit}
# What this one has beyond the everyday kinds (convolutions with batch-norms, a skip,
# a mean), they have one at a time.
SLOW = {"resnet9"}


class Case:
    """A net, its factored gradients and the same numbers stacked."""

    def __init__(self, name):
        self.name, self.tolerance = name, TOLERANCE.get(name, 1e-9)
        self.jit = JIT.get(name, tiny.quick_jit)
        self.params, predict, inputs = KINDS[name]()
        targets = np.arange(COUNT, dtype=np.int32) % OUTPUTS
        weights = np.array([1.0, 0.5, 0.0, 2.0, 0.3])
        self.objective = Objective(predict, cross_entropy, 0.7)
        self.batch = Batch(inputs, targets, weights)
        jacobian = self.jit(jax.jacrev(self.objective.example_losses))
        self.stacked = jax.tree.map(np.asarray, jacobian(self.params, self.batch))
        self.flat = np.concatenate(
            [leaf.reshape(COUNT, -1) for leaf in jax.tree.leaves(self.stacked)], axis=1
        )
        self.direction = jax.tree.map(lambda leaf: jnp.cos(3 + leaf), self.params)
        self.found = jax.tree.map(np.asarray, self._everything())

    def _everything(self):
        @self.jit
        def run(params, batch, direction):
            taped, gradients = loss_gradients(self.objective, params, batch)
            self.kinds = [type(gradient) for gradient in gradients]
            half = jax.tree.map(lambda leaf: leaf[:2], gradients)
            return {
                "dense": contractions.dense(taped, gradients),
                "square_sum": contractions.square_sum(taped, gradients, batch.weights),
                "weighted_sum": contractions.weighted_sum(
                    taped, gradients, batch.weights
                ),
                "squared_norms": contractions.squared_norms(gradients),
                "gram": contractions.gram(half, gradients),
                "own gram": gradient_gram(self.objective, params, batch, batch_size=3),
                "along": contractions.along(taped, gradients, direction),
            }

        batch = jax.tree.map(jnp.asarray, self.batch)
        return run(self.params, batch, self.direction)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in KINDS
    ],
)
def case(request):
    return Case(request.param)


def close(case, actual, expected):
    leaves = map(np.asarray, jax.tree.leaves(expected))
    scale = max(np.abs(leaf).max(initial=0) for leaf in leaves)
    assert scale > 0
    small = 1e-2 * case.tolerance * scale
    assert_trees_close(actual, expected, rtol=case.tolerance, atol=small)


def test_factors_are_the_stacked_gradients(case):
    close(case, case.found["dense"], case.stacked)


def test_square_sum_is_the_fisher_diagonal(case):
    weights = case.batch.weights
    expected = jax.tree.map(lambda j: np.tensordot(weights, j**2, 1), case.stacked)
    close(case, case.found["square_sum"], expected)


def test_weighted_sum_is_the_gradient_of_the_total(case):
    slope = case.jit(jax.grad(case.objective.total))
    close(case, case.found["weighted_sum"], slope(case.params, case.batch))


def test_norms_and_gram_are_those_of_the_flat_gradients(case):
    close(case, case.found["squared_norms"], np.sum(case.flat**2, axis=1))
    close(case, case.found["gram"], case.flat[:2] @ case.flat.T)
    there = np.asarray(case.batch.weights) != 0
    expected = case.flat @ case.flat.T * (there[:, None] & there)
    close(case, case.found["own gram"], expected)


def test_products_with_a_direction_are_directional_derivatives(case):
    derivative = case.jit(
        lambda params, batch, direction: jax.jvp(
            lambda p: case.objective.example_losses(p, batch), (params,), (direction,)
        )[1]
    )
    if case.name == "custom rule":  # no forward mode: the stacked gradients again
        flat = jnp.concatenate([x.ravel() for x in jax.tree.leaves(case.direction)])
        close(case, case.found["along"], case.flat @ flat)
        return
    expected = derivative(case.params, case.batch, case.direction)
    close(case, case.found["along"], np.asarray(expected))


def test_layers_stay_factored_where_they_can(case):
    if case.name in FACTORED:
        assert case.kinds == FACTORED[case.name]


@pytest.mark.parametrize(
    ("name", "paths"),
    [("dense", ()), ("low rank", ()), ("tied embedding", (("table",),))],
)
def test_what_is_formed_whole_is_told(name, paths):
    params, predict, inputs = KINDS[name]()
    assert formed_whole(tape(predict, params, inputs)) == paths


@pytest.mark.parametrize("name", ["dense", "attention", "embedding"])
def test_sketches_estimate_inner_products_within_their_error(name):
    case = Case(name)

    @tiny.quick_jit
    def products(keys, params, batch):
        taped, gradients = loss_gradients(case.objective, params, batch)

        def one(key):
            sketched = sketches.sketch(key, taped, gradients, width=32)
            return sketched @ sketched.T

        return jax.lax.map(one, keys, batch_size=50)

    batch = jax.tree.map(jnp.asarray, case.batch)
    drawn = np.asarray(
        products(jax.random.split(jax.random.key(0), 600), case.params, batch)
    )
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    exact = case.flat @ case.flat.T
    assert np.all(np.abs(drawn.mean(axis=0) - exact) < 4 * error)
    assert np.all(np.diag(error) < 0.1 * np.diag(exact))


def test_the_program_holds_nothing_of_the_size_examples_times_parameters():
    n, width = 64, 256
    params = {
        "w": jnp.zeros((4, width)),
        "b": jnp.zeros(width),
        "v": jnp.zeros((width, 3)),
        "u": jnp.zeros((width, width)),
    }

    def net(p, x):
        return jnp.tanh(jnp.tanh(x @ p["w"] + p["b"][None]) @ p["u"]) @ p["v"]

    objective = Objective(net, cross_entropy)
    batch = Batch(jnp.zeros((n, 4)), jnp.zeros(n, jnp.int32), jnp.ones(n))

    def squares(params, batch):
        taped, gradients = loss_gradients(objective, params, batch)
        return contractions.square_sum(taped, gradients, batch.weights)

    compiled = jax.jit(squares).lower(params, batch).compile()
    held = compiled.memory_analysis().temp_size_in_bytes
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert held < 3 * parameters  # n × p would be 64 of them


def test_half_precision_layers_are_summed_in_the_precision_of_the_parameters():
    def net(p, x):
        half = jnp.bfloat16
        return (x.astype(half) @ p["w"].astype(half)).astype(jnp.float32)

    n = 2048
    draw = np.random.default_rng(0)
    params = {"w": jnp.asarray(draw.normal(size=(4, 3)), jnp.float32)}
    inputs = jnp.asarray(draw.normal(size=(n, 4)), jnp.float32)
    batch = Batch(inputs, jnp.zeros(n, jnp.int32), jnp.ones(n, jnp.float32))
    objective = Objective(net, cross_entropy)
    taped, gradients = loss_gradients(objective, params, batch)
    value = contractions.square_sum(taped, gradients, batch.weights)
    stacked = jax.vmap(
        jax.grad(
            lambda p, x, y: objective.loss(net(p, x[None]), y[None])[0],
        ),
        (None, 0, 0),
    )(params, inputs, batch.targets)
    assert_trees_close(
        value, {"w": jnp.sum(jnp.square(stacked["w"]), axis=0)}, rtol=0.02
    )


def test_another_batch_of_the_same_shape_compiles_nothing():
    params, predict, inputs = KINDS["dense"]()
    traces = []

    @jax.jit
    def norms(params, batch):
        traces.append(1)
        objective = Objective(predict, cross_entropy)
        return contractions.squared_norms(loss_gradients(objective, params, batch)[1])

    batch = Batch(inputs, jnp.zeros(COUNT, jnp.int32), jnp.ones(COUNT))
    first = norms(params, batch)
    second = norms(params, batch._replace(inputs=inputs + 1))
    assert len(traces) == 1
    assert not np.allclose(first, second)


def test_examples_follow_one_another_where_an_operation_cannot_be_mapped():
    """Groups of rows, each with a matrix of its own."""
    sizes = jnp.array([2, 1, 1], jnp.int32)

    def net(p, x):
        rows = [jax.lax.ragged_dot(own, p["w"], sizes) for own in x]
        return jnp.tanh(jnp.stack(rows)).sum(1)

    objective = Objective(net, cross_entropy)
    params, inputs = {"w": draw(2, 3, 4, 3)}, draw(1, COUNT, 4, 4)
    batch = Batch(inputs, jnp.arange(COUNT) % 3, jnp.ones(COUNT))
    taped, gradients = loss_gradients(objective, params, batch)
    alone = [
        jax.grad(lambda p, n=n: objective.example_losses(p, batch)[n])(params)["w"]
        for n in range(COUNT)
    ]
    found = contractions.dense(taped, gradients)["w"]
    assert_trees_close(found, jnp.stack(alone), rtol=1e-9, atol=1e-12)
