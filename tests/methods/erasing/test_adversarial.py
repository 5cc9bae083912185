"""Attacks inside of training, and gradients that must not undo what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scene import KEY, PROMPTS, change, chosen, scene

from unlearn_jax import tree
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.adversarial import adv_unlearn, attacked, in_front
from unlearn_jax.methods.erasing.adversarial_closed import adv_closed
from unlearn_jax.methods.erasing.correction import doco, operated
from unlearn_jax.methods.erasing.esd import erasing, esd


def test_a_word_in_front_is_read_as_that_word():
    generator, variables = scene()
    pool = erasing(KEY, generator, variables, PROMPTS, ways=2)
    table = variables.params["text"]["tokens"]["embedding"]
    params, moved = in_front(variables.params, pool, table[jnp.array([4, 6])])
    tokens = np.array([[4, 1, 2], [6, 1, 2]])
    objective = diffusion_objective(generator.denoiser)
    plain = {**pool.inputs, "tokens": jnp.asarray(tokens)}
    np.testing.assert_allclose(
        objective.predict(params, moved.inputs),
        objective.predict(variables.params, plain),
        atol=1e-12,
    )


def test_the_attack_comes_nearer_to_what_was_told():
    generator, variables = scene()
    objective = diffusion_objective(generator.denoiser)
    pool = erasing(KEY, generator, variables, PROMPTS, ways=2)
    goal = pool._replace(targets=objective.predict(variables.params, pool.inputs))

    @tiny.quick_jit
    def left(v):
        found = [
            attacked(KEY, objective, v.params, goal, steps=count, rate=0.02)
            for count in (0, 1, 30)
        ]
        slope = jax.grad(lambda d: objective.risk(*in_front(v.params, goal, d)))
        return (
            found,
            [objective.risk(*in_front(v.params, goal, d)) for d in found],
            (slope(found[0])),
        )

    (start, once, _), losses, slope = left(variables)
    assert losses[2] < 0.7 * losses[0]
    # The first step is Adam's along this point's own gradient, with nothing piled up.
    expected = start - 0.02 * slope / (jnp.abs(slope) + 1e-8)
    np.testing.assert_allclose(once, expected, atol=1e-6)


@pytest.mark.slow
def test_both_defences_move_their_part_alone():
    generator, variables = scene()
    options = {"warm_up": 1, "steps": 2, "batch_size": 2, "ways": 2}

    @tiny.quick_jit
    def erased(v):
        one = adv_unlearn(KEY, generator, v, PROMPTS, attack_steps=2, **options)
        return one, adv_closed(KEY, generator, v, PROMPTS, **options)

    for found, part in zip(erased(variables), ("text", "x"), strict=True):
        inside = chosen(part)
        assert np.any(change(found)[inside])
        assert not np.any(change(found)[~inside])


@pytest.mark.slow
def test_the_closed_form_attack_at_the_original_is_the_prompt_itself():
    """So that its first step is ESD's, to the attack's ridge."""
    generator, variables = scene()
    common = {"batch_size": 2, "ways": 1, "learning_rate": 1e-6, "retain_weight": 0.0}

    @tiny.quick_jit
    def both(v):
        closed = adv_closed(
            KEY, generator, v, PROMPTS, warm_up=1, steps=1, attack_l2=1e-9, **common
        )
        twice = esd(
            jax.random.split(KEY, 4)[0], generator, v, PROMPTS, steps=1, **common
        )
        return closed, twice

    closed, once = (change(each) for each in both(variables))
    inside = chosen("x")
    # Another point, but every number goes one step further, up or down.
    further = np.abs(closed - once)[inside]
    assert np.median(further) == pytest.approx(1e-6, rel=1e-2)


def test_surgery_takes_away_what_opposes_and_the_released_one_takes_more():
    random = np.random.default_rng(0)
    g = {"a": jnp.asarray(0.01 * random.normal(size=4)), "b": jnp.ones(3) * 0.01}
    h = {"a": jnp.asarray(random.normal(size=4)), "b": -2.0 * jnp.ones(3)}
    flat_g, flat_h = (np.concatenate([t["a"], t["b"]]) for t in (g, h))
    inner = flat_g @ flat_h
    assert inner < 0
    found = operated(g, h)
    expected = flat_g - inner / (flat_h @ flat_h) * flat_h
    np.testing.assert_allclose(
        np.concatenate([found["a"], found["b"]]), expected, atol=1e-12
    )
    assert float(tree.dot(found, h)) == pytest.approx(0, abs=1e-12)
    same = operated(g, tree.scale(-1.0, h))
    np.testing.assert_array_equal(same["b"], g["b"])
    released = operated(g, h, "published")
    # Of tensor b alone the cosine is −1: the unit vector of h is added whole.
    np.testing.assert_allclose(
        released["b"], 0.01 - np.full(3, 1 / np.sqrt(3)), atol=1e-9
    )
    assert float(jnp.sum(released["b"] * h["b"])) > 0
    assert operated(g, h, "none") is g


def test_the_critic_is_warmed_up_alone_and_then_the_part_moves():
    generator, variables = scene()
    small = {"ways": 2, "batch_size": 2}

    @tiny.quick_jit
    def erased(v):
        return [
            doco(KEY, generator, v, PROMPTS, warm_up=2, steps=1, surgery=name, **small)
            for name in ("projected", "published")
        ]

    inside = chosen("x")
    for found in erased(variables):
        sizes = np.abs(change(found))
        assert not np.any(sizes[~inside])
        # One step of Adam, whatever the critic had learnt before.
        assert sizes.max() == pytest.approx(3e-4, rel=1e-3)
    with pytest.raises(ValueError, match="choose from projected, published, none"):
        doco(KEY, generator, variables, PROMPTS, surgery="pcgrad")
