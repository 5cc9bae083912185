"""SFD: its loss and slope by finite differences, and nothing to learn from itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scene import KEY, PROMPTS, scene, told

from unlearn_jax.diffusion.one_call import time_at
from unlearn_jax.methods.erasing.score_forgetting import score_forgetting
from unlearn_jax.methods.erasing.score_gap import Levels, Scored, score_loss
from unlearn_jax.types import Variables

COUNT, LEVELS = 3, Levels()


def seen(aims):
    random = np.random.default_rng(0)
    tokens = np.resize(PROMPTS.forget, (COUNT, 3))
    shape = (COUNT, 4, 4, 1)
    return Scored(
        jnp.asarray(tokens),
        jnp.asarray(np.resize(aims, (COUNT, 3))),
        jnp.asarray([1.0, 0.5, 0.0]),
        jnp.asarray(random.normal(size=shape)),
        jnp.asarray([3, 9, 15]),
        jnp.asarray(random.normal(size=shape)),
    )


def moved(seed):
    flat, back = ravel_pytree(scene()[1].params)
    drawn = jax.random.normal(jax.random.key(seed), flat.shape)
    return back(flat + 0.05 * drawn)


def clean(image, time, tokens, params, signal):
    noise = [
        told(image[i][None], int(time[i]), tokens[i], Variables(params, {}))[0]
        for i in range(COUNT)
    ]
    kept = np.sqrt(signal[np.asarray(time)])[:, None, None, None]
    lost = np.sqrt(1 - kept**2)
    return (image - lost * np.reshape(noise, image.shape)) / kept


def by_hand(params, scores, given, correction):
    """The formula, image by image."""
    generator, _ = scene()
    signal = np.asarray(generator.schedule.signal)
    start = int(np.argmin(abs(np.log(np.sqrt(1 / signal[1:] - 1) / 2.5)))) + 1
    lost = np.sqrt(1 - signal[start])
    codes = lost * np.asarray(given.codes)
    x = clean(codes, np.full(COUNT, start), given.tokens, params, signal)
    share = signal[np.asarray(given.times)][:, None, None, None]
    noised = np.sqrt(share) * x + np.sqrt(1 - share) * np.asarray(given.noise)
    f = clean(noised, given.times, given.aims, scores[0], signal)
    g = clean(noised, given.times, given.tokens, scores[1], signal)
    inner = ((f - g) * ((f - x) - correction * (f - g))).sum((1, 2, 3))
    return inner, np.abs(f - x).mean((1, 2, 3)), np.asarray(given.weights)


def test_the_loss_and_its_slope_are_those_of_the_formula():
    generator, _ = scene()
    own, scores, given = moved(1), (moved(2), moved(3)), seen(PROMPTS.anchor)
    both = tiny.quick_jit(
        jax.value_and_grad(
            lambda p: score_loss(generator, p, scores, given, LEVELS, 1.2)
        )
    )
    value, slope = both(own)
    inner, size, weights = by_hand(own, scores, given, 1.2)
    assert float(value) == pytest.approx(np.mean(weights * inner / size), rel=1e-9)
    flat, back = ravel_pytree(own)
    way = np.asarray(jax.random.normal(KEY, flat.shape, flat.dtype))
    ends = [
        by_hand(back(flat + sign * 1e-5 * way), scores, given, 1.2)[0]
        for sign in (1, -1)
    ]
    # ω is not differentiated.
    expected = np.mean(weights * (ends[0] - ends[1]) / size) / 2e-5
    found = float(np.asarray(ravel_pytree(slope)[0]) @ way)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_score_that_is_the_teachers_leaves_nothing_but_the_anchor_to_learn():
    generator, variables = scene()
    scores = variables.params, variables.params
    size = {}
    for name, aims in (("itself", PROMPTS.forget), ("anchor", PROMPTS.anchor)):
        slope = tiny.quick_jit(
            jax.grad(
                lambda p, given=seen(aims): score_loss(  # noqa: B008
                    generator, p, scores, given, LEVELS, 1.2
                )
            )
        )(variables.params)
        size[name] = float(jnp.linalg.norm(ravel_pytree(slope)[0]))
    assert size["itself"] < 1e-12
    assert size["anchor"] > 1e-3


def test_it_goes_and_says_what_cannot_be():
    generator, variables = scene()
    signal = np.asarray(generator.schedule.signal)
    assert signal[int(time_at(generator.schedule, 1.0))] == pytest.approx(0.5, abs=0.1)

    @tiny.quick_jit
    def after(v):
        return score_forgetting(KEY, generator, v, PROMPTS, steps=2, batch_size=2)

    change = (
        ravel_pytree(after(variables).params)[0] - ravel_pytree(variables.params)[0]
    )
    assert 0 < float(jnp.abs(change).max()) < 1e-3
    wrong = Levels(least=2.0, most=1.0)
    with pytest.raises(ValueError, match="least below the most"):
        score_forgetting(KEY, generator, variables, PROMPTS, levels=wrong)
