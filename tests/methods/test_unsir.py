"""UNSIR: the noise, then two trainings on it, against Adam written out."""

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.unsir import unsir
from unlearn_jax.train.objective import bind

KEY = jax.random.key(3)
OPTIONS = {"batch_size": 64, "noise_steps": 5, "noise_rate": 0.2, "penalty": 0.05}


def adam(slope, start, rate, steps):
    """Descent by Adam with its usual moments."""
    theta, first, second = start, 0 * start, 0 * start
    for t in range(1, steps + 1):
        g = slope(theta)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        sizes = np.sqrt(second / (1 - 0.999**t)) + 1e-8
        theta = theta - rate * first / (1 - 0.9**t) / sizes
    return theta


def noise_slope(params, labels, penalty):
    """Of −ℓ + penalty · ‖noise‖², by hand for the tiny net."""
    (hidden,), head = params["hidden"].values(), params["head"]
    truth = np.eye(tiny.CLASSES)[labels]

    def slope(noise):
        values = np.tanh(noise @ hidden["kernel"] + hidden["bias"])
        odds = np.exp(values @ head["kernel"] + head["bias"])
        miss = odds / odds.sum(1, keepdims=True) - truth
        back = (miss @ head["kernel"].T * (1 - values**2)) @ hidden["kernel"].T
        return -back + 2 * penalty * noise

    return slope


def test_noise_then_impair_then_repair_are_three_runs_of_adam(original, request_a):
    learner, (forget, retain) = tiny.learner("mlp"), request_a
    params = jax.tree.map(np.array, original.params)
    draw_key = jax.random.split(KEY, 3)[0]
    draws = tree.random_like(draw_key, jnp.asarray(forget.inputs), jax.random.normal)
    slope = noise_slope(params, forget.targets, 0.05)
    noise = adam(slope, np.array(draws), 0.2, 5)

    vector, unravel = jax.flatten_util.ravel_pytree(original.params)
    risk = bind(learner.model, {}, learner.loss).risk
    gradient = tiny.quick_jit(lambda v, b: jax.grad(lambda u: risk(unravel(u), b))(v))
    parts = zip(retain, forget._replace(inputs=noise), strict=True)
    both = type(retain)(*(np.concatenate(pair) for pair in parts))
    impaired = adam(lambda v: gradient(v, both), vector, 0.01, 2)
    repaired = adam(lambda v: gradient(v, retain), impaired, 0.01, 2)

    method = unsir(learner, epochs=2, learning_rate=0.01, **OPTIONS)
    moved = tiny.quick_jit(method.forget)(KEY, (), original, request_a)[0]
    assert_trees_close(moved.params, unravel(repaired), rtol=1e-6, atol=1e-8)
    assert jnp.linalg.norm(impaired - repaired) > 1e-3
