"""Selective Amnesia of an autoencoder: first steps, and what curvature holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax import tree
from unlearn_jax.generators.evidence import evidence_objective
from unlearn_jax.methods.erasing.amnesia_codes import (
    Labels,
    amnesia_codes,
    amnesia_codes_newton,
    recalled_codes,
    recoded,
    surrogate_codes,
)
from unlearn_jax.methods.erasing.curvature import curvature, product, unit
from unlearn_jax.methods.erasing.newton import Solve
from unlearn_jax.models.variational import variational

KEY = jax.random.key(5)
LABELS = Labels(np.array([1]), np.array([0, 2]))
FEW = {"batch_size": 4, "memories": 6, "points": 8}
RATE = 1e-3


@functools.cache
def scene():
    autoencoder = variational((2, 2, 1), 3, codes=1, widths=(3,), dtype=jnp.float64)
    flat, back = ravel_pytree(autoencoder.model.init(KEY).params)
    flat = flat + 0.3 * jax.random.normal(KEY, flat.shape)
    return autoencoder, autoencoder.model.init(KEY)._replace(params=back(flat))


def change(after):
    before = scene()[1].params
    return np.asarray(ravel_pytree(after.params)[0] - ravel_pytree(before)[0])


def test_the_first_step_is_towards_noise_and_what_was_drawn():
    autoencoder, variables = scene()
    options = {**FEW, "steps": 1, "learning_rate": RATE, "replay_weight": 0.5}

    @tiny.quick_jit
    def ours(v):
        return amnesia_codes(KEY, autoencoder, v, LABELS, weight=0.0, **options)

    @tiny.quick_jit
    def slope(v):
        first, _, third = jax.random.split(KEY, 3)
        memory = recalled_codes(first, autoencoder, v, LABELS, 6)
        keys = jax.random.split(jax.random.fold_in(third, 0))
        blank = surrogate_codes(keys[0], autoencoder, jnp.array([1]), 4)
        kept = recoded(keys[1], autoencoder, memory, 4)
        risk = evidence_objective(autoencoder).risk
        both = lambda p: risk(p, blank) + 0.5 * risk(p, kept)  # noqa: E731
        return ravel_pytree(jax.grad(both)(v.params))[0], blank.inputs["label"]

    expected, labels = slope(variables)
    assert np.all(np.asarray(labels) == 1)
    expected = -RATE * expected / (np.abs(expected) + 1e-8)
    np.testing.assert_allclose(change(ours(variables)), expected, atol=1e-5 * RATE)


def test_one_second_order_step_is_the_best_on_its_line():
    """Of the dense model: −g along (λ (F + δ))⁻¹ g."""
    autoencoder, variables = scene()
    weight, damping = 2.0, 0.3
    objective = evidence_objective(autoencoder)
    flat, back = ravel_pytree(variables.params)

    @tiny.quick_jit
    def ours(v):
        return amnesia_codes_newton(
            KEY,
            autoencoder,
            v,
            LABELS,
            solve=Solve("diagonal", weight, damping, points=4, kept=8),
            memories=6,
        )

    @tiny.quick_jit
    def dense(v):
        first, second, third, last = jax.random.split(KEY, 4)
        memory = recalled_codes(first, autoencoder, v, LABELS, 6)
        data = recoded(second, autoencoder, memory, 8)
        stiff = curvature("diagonal", objective, v.params, data)
        pool = surrogate_codes(third, autoencoder, jnp.array([1]), 16)
        rows = jax.random.choice(
            jax.random.fold_in(last, 0), 16, (4,), p=jnp.full(16, 1 / 16)
        )
        own = jax.tree.map(lambda leaf: leaf[rows], pool)
        slope = jax.grad(lambda x: objective.risk(back(x), own))(flat)
        told = objective.predict(v.params, own.inputs)
        jac = jax.jacrev(lambda x: objective.predict(back(x), own.inputs))(flat)
        bend = jax.vmap(
            lambda o, t: jax.hessian(lambda o: objective.loss(o[None], t[None])[0])(o)
        )(told, own.targets)
        whole = jnp.einsum("nop,noq,nqr->pr", jac, bend, jac) / 4
        tether = weight * (ravel_pytree(stiff)[0] + damping * unit(stiff))
        along = -slope / tether
        length = -(slope @ along) / (along @ (whole @ along + tether * along))
        return length * along

    np.testing.assert_allclose(change(ours(variables)), dense(variables), rtol=1e-7)


@pytest.mark.parametrize("kind", ["diagonal", "low_rank"])
def test_a_heavier_tether_holds_more(kind):
    """In its own metric, (θ − θ*)ᵀ F (θ − θ*)."""
    autoencoder, variables = scene()
    objective = evidence_objective(autoencoder)
    options = {**FEW, "steps": 60, "learning_rate": 1e-2, "replay_weight": 0.0}

    @tiny.quick_jit
    def moved(weight):
        v = variables
        given = KEY, autoencoder, v, LABELS
        after = amnesia_codes(*given, kind=kind, weight=weight, **options)
        first, second, _ = jax.random.split(KEY, 3)
        memory = recalled_codes(first, autoencoder, v, LABELS, 6)
        kept = recoded(second, autoencoder, memory, 8)
        matrix = curvature(kind, objective, v.params, kept)
        apart = tree.subtract(after.params, v.params)
        return tree.dot(apart, product(matrix, v.params).matvec(apart))

    free, tied, fast = (float(moved(jnp.float64(w))) for w in (0, 1, 100))
    assert free > 2 * tied > 20 * fast > 0
