"""Factors of the loss's Hessian in the outputs: closed forms against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.curvature.diagonal import fisher_diagonal
from unlearn_jax.curvature.label_slopes import output_factors
from unlearn_jax.train.loss import (
    cross_entropy,
    kl_divergence,
    sequence_nll,
    squared_error,
    squared_norm,
)
from unlearn_jax.train.objective import Objective, bind

RANDOM = np.random.default_rng(0)
OUTPUTS = jnp.asarray(RANDOM.normal(size=(5, 4)))
TOKENS = jnp.asarray(RANDOM.normal(size=(3, 2, 4)))


def double_well(outputs, targets):
    """No convex loss: its Hessian has both signs."""
    return jnp.sum(jnp.square(jnp.square(outputs) - 1), axis=1)


CASES = {
    "cross_entropy": (cross_entropy, OUTPUTS, jnp.arange(5) % 4),
    "squared_error": (squared_error, OUTPUTS, 2.0 * OUTPUTS),
    "squared_norm": (squared_norm, TOKENS, jnp.zeros(3)),
    "sequence_nll": (sequence_nll, TOKENS, jnp.array([[1, -1], [0, 3], [-1, -1]])),
    "kl_divergence": (
        functools.partial(kl_divergence, temperature=2.0),
        OUTPUTS,
        jax.nn.log_softmax(OUTPUTS[::-1]),
    ),
    "double_well": (double_well, OUTPUTS, jnp.zeros(5)),
}


@pytest.mark.parametrize("name", CASES)
def test_factors_make_up_the_hessian(name):
    loss, outputs, targets = CASES[name]

    def both(outputs, targets):
        def alone(out, target):
            return loss(out[None], jax.tree.map(lambda leaf: leaf[None], target))[0]

        found = output_factors(Objective(lambda p, x: p, loss), outputs, targets)
        return found, jax.vmap(jax.hessian(alone))(outputs, targets)

    (cotangents, scales), hessian = tiny.quick_jit(both)(outputs, targets)
    flat = cotangents.reshape(*scales.shape, -1)
    size = flat.shape[-1]
    found = np.einsum("sn,sni,snj->nij", scales, flat, flat)
    expected = hessian.reshape(len(outputs), size, size)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (np.min(scales) < -0.1) if name == "double_well" else np.all(scales >= 0)


def test_no_fisher_diagonal_is_negative():
    """Not of a net so sure that its probabilities are next to rounding."""
    learner = tiny.learner("mlp", jnp.float32)
    params = jax.tree.map(
        lambda leaf: 30 * leaf, learner.model.init(jax.random.key(0)).params
    )
    objective = bind(learner.model, {}, learner.loss)
    data = tiny.examples(np.float32)
    found = tiny.quick_jit(lambda p, d: fisher_diagonal(objective, p, d))(params, data)
    leaves = jax.tree.leaves(found)
    assert all(np.all(np.asarray(leaf) >= 0) for leaf in leaves)
    assert any(np.any(np.asarray(leaf) > 0) for leaf in leaves)
