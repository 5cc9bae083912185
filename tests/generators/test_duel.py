"""The two losses by other roads, the first step of both, a generator that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.data.canvas import digit_canvas
from unlearn_jax.generators.duel import (
    Rates,
    critic_loss,
    duel,
    fit_adversarial,
    generator_loss,
)
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.types import Batch

KEY = jax.random.key(9)


def small():
    gan = adversarial((2, 2, 1), codes=2, widths=(3,), dtype=jnp.float64)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2, 1))
    return gan, gan.init(KEY), Batch(jnp.asarray(images), jnp.zeros(4), jnp.ones(4))


def test_the_critic_pays_for_its_slope_at_real_images():
    gan, variables, data = small()
    codes = jax.random.normal(KEY, (4, 2), jnp.float64)
    params = variables.params

    @tiny.quick_jit
    def losses(images):
        real = [critic_loss(gan, params, images, codes, g) for g in (0.0, 2.0)]
        told = gan.real(params["critic"], images)
        false = gan.real(params["critic"], gan.images(params["generator"], codes))
        return real, told, false, generator_loss(gan, params, codes)

    (free, held), told, false, drawn = losses(data.inputs)
    chance = [1 / (1 + np.exp(-np.asarray(each))) for each in (told, false)]
    expected = -np.mean(np.log(chance[0])) - np.mean(np.log(1 - chance[1]))
    np.testing.assert_allclose(free, expected, rtol=1e-10)
    np.testing.assert_allclose(drawn, -np.mean(np.log(chance[1])), rtol=1e-10)
    square, step = 0, 1e-5
    for pixel in range(4):
        change = np.zeros(4)
        change[pixel] = step
        ends = [
            np.asarray(losses(data.inputs + sign * change.reshape(1, 2, 2, 1))[1])
            for sign in (1, -1)
        ]
        square = square + ((ends[0] - ends[1]) / (2 * step)) ** 2
    np.testing.assert_allclose(held - free, np.mean(square), rtol=1e-6)


def test_the_critic_steps_first_and_the_generator_against_it():
    """Adam's first step without memory is the sign of the gradient, nearly."""
    gan, variables, data = small()
    one = Rates(steps=1, batch_size=4, learning_rate=1e-3)
    moved = tiny.quick_jit(lambda v: duel(KEY, gan, v, data, one))(variables)

    @tiny.quick_jit
    def slopes(params, judge):
        first, second = jax.random.split(jax.random.fold_in(KEY, 0))
        rows, noise = jax.random.split(first)
        chosen = jax.random.choice(rows, 4, (4,), p=jnp.full(4, 0.25))
        codes = jax.random.normal(noise, (4, 2), jnp.float64)
        again = jax.random.normal(second, (4, 2), jnp.float64)

        def critic(own):
            whole = {**params, "critic": own}
            return critic_loss(gan, whole, data.inputs[chosen], codes, 1.0)

        def generator(own):
            return generator_loss(gan, {"generator": own, "critic": judge}, again)

        return jax.grad(critic)(params["critic"]), jax.grad(generator)(
            params["generator"]
        )

    found = slopes(variables.params, moved.params["critic"])
    for name, slope in zip(("critic", "generator"), found, strict=True):
        before, after, flat = (
            np.asarray(ravel_pytree(each)[0])
            for each in (variables.params[name], moved.params[name], slope)
        )
        expected = -1e-3 * flat / (np.abs(flat) + 1e-8)
        np.testing.assert_allclose(after - before, expected, atol=1e-8)
    with pytest.raises(ValueError, match="steps"):
        duel(KEY, gan, variables, data, one._replace(steps=0))


def test_drawn_digits_come_nearer_to_real_ones():
    train = digit_canvas(styles=("plain",)).dataset.splits.train
    gan = adversarial((8, 8, 1), widths=(64,))
    rates = Rates(steps=300, learning_rate=2e-3)
    fit = jax.jit(lambda key, data: fit_adversarial(key, gan, data, rates)[0])
    codes = jax.random.normal(KEY, (500, gan.codes))
    mean = np.asarray(train.inputs).mean(0)

    def apart(variables):
        drawn = np.asarray(gan.images(variables.params["generator"], codes))
        return np.abs(drawn.mean(0) - mean).mean()

    assert apart(fit(KEY, train)) < 0.35 * apart(gan.init(KEY))
