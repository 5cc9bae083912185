"""Reverse mode through influence with a solver inside, against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution.influence import (
    influence_on_outputs,
    influence_on_parameters,
)
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import damped
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.minres import minres
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective

COUNT = 9
TRAIN = tiny.examples(count=COUNT)
OBJECTIVE = Objective(lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], cross_entropy, l2=0.1)


def parameters():
    random = np.random.default_rng(2)
    return {
        "w": jnp.asarray(random.normal(size=(tiny.FEATURES, 2))),
        "v": jnp.asarray(random.normal(size=(2, tiny.CLASSES))),
    }


def inverse(solver, params, damping):
    operator = damped(gauss_newton(OBJECTIVE, params, TRAIN), damping)
    return lambda v: solver(operator, v, tol=1e-12, max_steps=200).value


def on_parameters(solver):
    change = jnp.where(jnp.arange(COUNT) % 4 == 1, -1.0, 0.0)

    def value(params, damping):
        apply = inverse(solver, params, damping)
        moved = influence_on_parameters(
            OBJECTIVE, params, TRAIN, change, apply, batch_size=2
        )
        return tree.dot(moved, moved)

    return value


def on_outputs(solver):
    queries = jax.tree.map(lambda leaf: leaf[:2], TRAIN)

    def value(params, damping):
        apply = inverse(solver, params, damping)
        scores = influence_on_outputs(
            OBJECTIVE, params, TRAIN, queries, None, apply, batch_size=4
        )
        return jnp.sum(scores**2)

    return value


@pytest.mark.parametrize(
    ("effect", "solver"), [(on_parameters, conjugate_gradient), (on_outputs, minres)]
)
def test_gradient_by_parameters_and_damping_is_that_of_differences(effect, solver):
    value = effect(solver)
    params, damping = parameters(), jnp.asarray(0.3)
    slope = tiny.quick_jit(jax.grad(value, (0, 1)))(params, damping)
    direction = tree.random_like(jax.random.key(4), params, jax.random.normal)
    run = tiny.quick_jit(
        lambda step: value(tree.axpy(step, direction, params), damping + step)
    )
    step = 1e-4
    difference = (run(step) - run(-step)) / (2 * step)
    along = tree.dot(slope[0], direction) + slope[1]
    # The second-order error of a difference is step² times a third derivative.
    np.testing.assert_allclose(along, difference, rtol=1e-5)
