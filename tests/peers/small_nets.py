"""Small nets and losses of the peers' tests, as plain functions of their parameters."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.train.loss import cross_entropy, sequence_nll, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch


class Case(NamedTuple):
    """A problem of curvature: what is differentiated, where, and the examples."""

    objective: Objective
    params: Any
    data: Batch


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def flat(value):
    return jax.flatten_util.ravel_pytree(value)[0]


def logistic_loss(outputs, targets):
    """Binary cross-entropy of each output against a soft label, the mean over them."""
    losses = jax.nn.softplus(outputs) - targets * outputs
    return jnp.mean(losses, axis=tuple(range(1, outputs.ndim)))


def mean_squared_error(outputs, targets):
    """Over all of an example's positions and outputs."""
    return jnp.mean((outputs - targets) ** 2, axis=tuple(range(1, outputs.ndim)))


def layers(seed, *widths):
    """Parameters of dense layers."""
    return {
        f"layer{i}": {
            "kernel": numbers(seed + i, *pair) / np.sqrt(pair[0]),
            "bias": 0.3 * numbers(seed + i + 50, pair[1]),
        }
        for i, pair in enumerate(itertools.pairwise(widths))
    }


def perceptron(params, inputs, *, activation=jax.nn.relu):
    values = inputs
    for i, layer in enumerate(params.values()):
        bias = layer["bias"].reshape(*(1,) * (values.ndim - 1), -1)
        values = (activation(values) if i else values) @ layer["kernel"] + bias
    return values


def of_dict(params, inputs):
    return perceptron(params, inputs["x"])


def labels(seed, *shape, classes):
    return jnp.asarray(
        np.random.default_rng(seed).integers(0, classes, shape), np.int32
    )


def soft(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape))


def _case(loss, targets, *shape, outputs, as_dict=False, features=4, width=3):
    inputs = numbers(1, *shape, features)
    data = Batch({"x": inputs} if as_dict else inputs, targets, jnp.ones(shape[0]))
    objective = Objective(of_dict if as_dict else perceptron, loss)
    return Case(objective, layers(7, features, width, outputs), data)


N, T = 5, 3
CASES = {
    "softmax": lambda: _case(cross_entropy, labels(2, N, classes=3), N, outputs=3),
    "one logit": lambda: _case(logistic_loss, soft(2, N, 1), N, outputs=1),
    "two logits": lambda: _case(logistic_loss, soft(2, N, 2), N, outputs=2),
    "squares": lambda: _case(squared_error, numbers(2, N, 3), N, outputs=3),
    "dict, softmax": lambda: _case(
        cross_entropy, labels(2, N, classes=3), N, outputs=3, as_dict=True
    ),
    "dict, one logit": lambda: _case(
        logistic_loss, soft(2, N, 1), N, outputs=1, as_dict=True
    ),
    "dict, squares": lambda: _case(
        squared_error, numbers(2, N, 2), N, outputs=2, as_dict=True
    ),
    "sequence, softmax": lambda: _case(
        sequence_nll, labels(2, N, T, classes=3), N, T, outputs=3
    ),
    "sequence, two logits": lambda: _case(
        logistic_loss, soft(2, N, T, 2), N, T, outputs=2
    ),
    "sequence, squares": lambda: _case(
        mean_squared_error, numbers(2, N, T, 3), N, T, outputs=3
    ),
}


class Exact(NamedTuple):
    """Dense matrices by JAX's own derivatives: the second road."""

    jacobian: Any
    hessian: Any
    gauss_newton: Any
    empirical: Any


def exact(case):
    """Everything by dense Jacobians and Hessians of flat vectors, no operator used."""
    objective, params, data = case
    start, unflatten = jax.flatten_util.ravel_pytree(params)
    shares = data.weights / jnp.sum(data.weights)

    def outputs(theta):
        return objective.predict(unflatten(theta), data.inputs)

    def losses(theta):
        return objective.loss(outputs(theta), data.targets)

    def one_loss(out, target):
        return objective.loss(out[None], target[None])[0]

    out = outputs(start)
    jacobian = jax.jacrev(outputs)(start)
    bends = jax.vmap(jax.hessian(one_loss))(out, data.targets)
    k = out[0].size
    rows = jacobian.reshape(len(out), k, -1)
    bends = bends.reshape(len(out), k, k)
    slopes = jax.jacrev(losses)(start)
    return Exact(
        jacobian,
        jax.hessian(lambda theta: jnp.sum(shares * losses(theta)))(start),
        jnp.einsum("n,nki,nkl,nlj->ij", shares, rows, bends, rows),
        jnp.einsum("n,ni,nj->ij", shares, slopes, slopes),
    )


def diagonal_blocks(matrix, params):
    """The matrix with zeros between different leaves."""
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    marks = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(marks[:, None] == marks[None], matrix, 0)
