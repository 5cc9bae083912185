"""TRCE's second stage: its first step, its hinge, and gradients never cleared."""

import jax
import numpy as np
import optax
import pytest
import tiny
from scene import KEY, PIXELS, PROMPTS, change, is_first_step, jacobian, scene, told

from unlearn_jax.methods.erasing.rollouts import rollouts
from unlearn_jax.methods.erasing.steering import (
    Steering,
    accumulating,
    hinge,
    trce_steering,
)

RATE = 1e-3
ONE = {"steps": 1, "learning_rate": RATE, "batch_size": 2, "ways": 1}
NULL = np.zeros(3, np.int32)


def test_the_first_step_is_from_the_malicious_target_to_the_safe_one():
    """Whatever the model tells: ‖ε − s‖² − ‖ε − u‖² has the slope 2 (u − s) J."""
    generator, variables = scene()

    @tiny.quick_jit
    def both(v):
        def after(margin):
            asked = Steering(guidance=4.0, margin=margin, early=1.0)
            given = KEY, generator, v, v, PROMPTS
            return trce_steering(*given, steering=asked, **ONE)

        first = jax.random.split(KEY, 3)[0]
        start = rollouts(first, generator, v, PROMPTS.forget).image
        return after(1e6), after(-1e6), start

    far, near, image = both(variables)
    safe = told(image, 20, PROMPTS.anchor[0])[0]
    unsafe = told(image, 20, PROMPTS.forget[0])[0]
    slope = 0
    for tokens in (PROMPTS.forget[0], NULL):
        way = 4.0 * (unsafe - safe) / PIXELS
        slope = slope + way @ jacobian(image, 20, tokens)[0]
    is_first_step(far, slope, "steering", RATE)
    # Beyond the margin nothing pulls, but what the two ways to predict round.
    np.testing.assert_allclose(change(near), 0, atol=1e-3 * RATE)


def test_the_hinge_is_a_mean_over_points_that_are_not_there_yet():
    random = np.random.default_rng(0)
    ours, safe, unsafe = random.normal(size=(3, 5, 4))
    gap = ((ours - safe) ** 2).mean(1) - ((ours - unsafe) ** 2).mean(1) + 0.3
    assert 0 < np.sum(gap > 0) < 5
    found = hinge(ours, {"safe": safe, "unsafe": unsafe}, 0.3)
    np.testing.assert_allclose(found, np.maximum(gap, 0).mean(), rtol=1e-12)


def test_gradients_that_are_never_cleared_add_up():
    rule = accumulating(optax.sgd(1.0))
    state, seen = rule.init(np.zeros(())), []
    for slope in (1.0, 2.0, 3.0):
        update, state = rule.update(np.asarray(slope), state)
        seen.append(float(update))
    assert seen == [-1.0, -3.0, -6.0]


def test_a_share_of_steps_that_is_none_is_refused():
    generator, variables = scene()
    wrong = Steering(early=1.5)
    with pytest.raises(ValueError, match="early"):
        trce_steering(KEY, generator, variables, variables, PROMPTS, steering=wrong)
