"""ESD: its points are the sampler's, its first step is that of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scene import KEY, PROMPTS, chosen, is_first_step, jacobian, scene, told

from unlearn_jax.diffusion.sampler import guided, sample
from unlearn_jax.methods.erasing.esd import away, erasing, esd, staying
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import rolled, rollouts

RATE = 1e-3
OPTIONS = {"steps": 1, "learning_rate": RATE, "batch_size": 2, "ways": 1}


def test_points_are_those_of_the_sampler():
    generator, variables = scene(steps=4)
    tokens = jnp.asarray(PROMPTS.retain)
    rolls = tiny.quick_jit(lambda v: rollouts(KEY, generator, v, tokens))(variables)
    stopped = tiny.quick_jit(lambda v, stop: rolled(KEY, generator, v, tokens, stop))
    points = np.asarray(rolls.image).reshape(4, 2, 4, 4, 1)
    for stop in range(4):
        np.testing.assert_allclose(stopped(variables, stop), points[stop], atol=1e-12)

    @tiny.quick_jit
    def drawn(v, start):
        text, empty = (
            generator.denoiser.encode(v, t) for t in (tokens, generator.null())
        )
        predict = guided(generator.denoiser, v, text, empty, generator.guidance)
        return sample(KEY, predict, generator.schedule, start, steps=4)

    np.testing.assert_allclose(
        stopped(variables, 4), drawn(variables, points[0]), atol=1e-10
    )
    image, time = rolls.image[2:4], int(rolls.time[2])
    np.testing.assert_allclose(
        rolls.told[2], told(image, time, PROMPTS.retain[0])[0], atol=1e-12
    )
    np.testing.assert_allclose(
        rolls.silent[3], told(image, time, np.zeros(3, np.int32))[1], atol=1e-12
    )
    with pytest.raises(ValueError, match="at most the 20 times"):
        rollouts(KEY, generator._replace(steps=21), variables, tokens)


def first_slope(image, strength):
    """(1 + η) Jᵀ (ε(c) − ε(∅)), for one point."""
    given = image, 20, PROMPTS.forget[0]
    silent = told(image, 20, np.zeros(3, np.int32))
    missing = (1 + strength) * (told(*given) - silent)
    return np.einsum("mk,mkp->p", missing, jacobian(*given)) / len(image)


@pytest.mark.parametrize("part", ["strict", pytest.param("u", marks=pytest.mark.slow)])
def test_the_first_step_is_away_from_what_the_prompt_meant(part):
    generator, variables = scene()
    pool_key = jax.random.split(KEY, 3)[0]
    pool = erasing(pool_key, generator, variables, PROMPTS, strength=0.5, ways=1)

    @tiny.quick_jit
    def erased(v):
        return esd(KEY, generator, v, PROMPTS, part=part, strength=0.5, **OPTIONS)

    slope = first_slope(pool.inputs["image"], 0.5)
    is_first_step(erased(variables), slope, part, RATE)


def test_on_policy_begins_with_the_original():
    generator, variables = scene()

    @tiny.quick_jit
    def erased(v):
        options = {**OPTIONS, "batch_size": 1}
        return esd(KEY, generator, v, PROMPTS, on_policy=True, **options)

    own = jax.random.fold_in(jax.random.split(KEY, 3)[2], 0)
    own = jax.random.split(jax.random.split(own)[0])[1]
    image = jax.random.normal(own, (1, 4, 4, 1), jnp.float64)
    is_first_step(erased(variables), first_slope(image, 1.0), "x", RATE)


@pytest.mark.slow
def test_points_of_the_edited_model_are_others_than_those_of_the_original():
    """What separates the two releases: after some steps they see different images."""
    generator, variables = scene(steps=3)
    common = {**OPTIONS, "steps": 3, "learning_rate": 0.1}

    @tiny.quick_jit
    def both(v):
        edited = esd(KEY, generator, v, PROMPTS, **common)
        tokens = jnp.asarray(PROMPTS.forget)
        return [rolled(KEY, generator, each, tokens, 2) for each in (v, edited)]

    before, after = both(variables)
    assert np.abs(before - after).max() > 1e-3


def test_the_two_releases_tell_one_target_by_two_numbers():
    told, silent = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)))
    later = told - 2.0 * (told - silent)
    np.testing.assert_allclose(away(told, silent, 1.0), later, atol=1e-15)


@pytest.mark.slow
def test_what_stays_has_no_slope_at_the_original():
    generator, variables = scene(steps=2)
    stay = staying(KEY, generator, variables, PROMPTS, ways=2)
    seen = stay.inputs
    for row in range(4):
        found = told(seen["image"][row][None], seen["time"][row], seen["tokens"][row])
        np.testing.assert_allclose(found[0], stay.targets[row], atol=1e-12)


def test_parts_are_disjoint_and_known():
    x, strict, u, inner, text = map(chosen, ("x", "strict", "u", "noxattn", "text"))
    assert not np.any(x & u)
    assert not np.any(text & (x | u))
    assert np.all(x | u | text)
    assert 0 < strict.sum() < x.sum()
    assert 0 < inner.sum() < u.sum()
    generator, variables = scene()
    with pytest.raises(ValueError, match="choose from strict, x, u"):
        part_of(generator.denoiser, variables.params, "esd-x")
    deaf = generator.denoiser._replace(reads_text=lambda path: False)
    with pytest.raises(ValueError, match="no part 'strict'"):
        part_of(deaf, variables.params, "strict")
