"""Image-to-image forgetting: the solve has no slope left, tuning moves the encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.generators.masks import random_masks
from unlearn_jax.methods.erasing.newton import Solve
from unlearn_jax.methods.erasing.noise_codes import (
    codes_objective,
    mean_noise,
    noise_codes,
    noise_codes_closed,
    noise_codes_newton,
    noise_like,
    seen_of,
    shown,
)
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.models.masked import masked_autoencoder
from unlearn_jax.types import Batch

KEY = jax.random.key(6)
SHAPE = (4, 4, 1)


@functools.cache
def scene():
    autoencoder = masked_autoencoder(
        SHAPE, width=4, codes=2, depth=1, heads=2, dtype=jnp.float64
    )
    variables = autoencoder.model.init(KEY)
    drawn = np.random.default_rng(1).uniform(-1, 1, (8, *SHAPE))
    parts = [
        Batch(jnp.asarray(each), jnp.zeros(len(each)), jnp.ones(len(each)))
        for each in (drawn[:3], drawn[3:])
    ]
    return autoencoder, variables, *parts


def test_the_solve_is_where_the_published_loss_has_no_slope():
    autoencoder, variables, forget, retain = scene()
    strength, l2 = 0.7, 1e-2

    @tiny.quick_jit
    def ours(v):
        given = KEY, autoencoder, v, forget, retain
        return noise_codes_closed(*given, strength=strength, l2=l2)

    @tiny.quick_jit
    def slope(v, after):
        first, second, third, fourth = jax.random.split(KEY, 4)
        noise = noise_like(third, autoencoder, retain, 256)
        masks = random_masks(fourth, autoencoder, 256)
        codes = autoencoder.encode(v, {"image": noise, "seen": masks})
        told = masks[:, :, None]
        # Of each place: the published target is the code of noise where it is hidden.
        mean = jnp.sum(jnp.where(told, codes, 0), 0) / jnp.sum(told, 0)
        mean = mean[None]

        def loss(kernel):
            def moved(data, key, aim):
                seen = random_masks(key, autoencoder, len(data.inputs))
                inputs = {"image": data.inputs, "seen": seen}
                found = autoencoder.inner(v, inputs) @ kernel
                aim = autoencoder.encode(v, inputs) if aim is None else aim
                square = jnp.where(seen[:, :, None], (found - aim) ** 2, 0)
                return jnp.sum(square) / jnp.sum(seen)

            home = v.params["encoder"]["head"]["kernel"]
            kept = moved(retain, first, None)
            apart = l2 * jnp.sum((kernel - home) ** 2)
            return kept + strength * moved(forget, second, mean) + apart

        kernels = [each.params["encoder"]["head"]["kernel"] for each in (v, after)]
        return [jnp.abs(jax.grad(loss)(kernel)).max() for kernel in kernels]

    after = ours(variables)
    before, left = slope(variables, after)
    assert left < 1e-10 < 1e-3 < before
    moved = after.params["encoder"].pop("head")
    variables.params["encoder"] = {**variables.params["encoder"]}
    rest = {**variables.params["encoder"]}
    rest.pop("head")
    assert moved
    for one, other in zip(
        jax.tree.leaves((after.params["encoder"], after.params["decoder"])),
        jax.tree.leaves((rest, variables.params["decoder"])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_images_without_weight_change_nothing_in_closed_form():
    autoencoder, variables, forget, retain = scene()
    none = jnp.full((2, *SHAPE), jnp.nan)
    padded = [
        Batch(
            jnp.concatenate([part.inputs, none]),
            jnp.zeros(len(part.targets) + 2),
            jnp.concatenate([part.weights, jnp.zeros(2)]),
        )
        for part in (forget, retain)
    ]

    @tiny.quick_jit
    def after(v, forget, retain):
        moved = noise_codes_closed(KEY, autoencoder, v, forget, retain)
        return moved.params["encoder"]["head"]["kernel"]

    found = after(variables, *padded)
    other = [
        part._replace(inputs=jnp.nan_to_num(part.inputs, nan=0.3)) for part in padded
    ]
    np.testing.assert_array_equal(found, after(variables, *other))
    assert np.isfinite(found).all()
    # Nothing is to be forgotten: nothing moves.
    nobody = padded[0]._replace(weights=jnp.zeros(5))
    home = variables.params["encoder"]["head"]["kernel"]
    np.testing.assert_allclose(after(variables, nobody, padded[1]), home, atol=1e-12)
    assert np.abs(found - home).max() > 1e-6


def test_the_first_step_of_adam_is_along_the_loss_and_in_the_encoder_alone():
    autoencoder, variables, forget, retain = scene()
    rate = 1e-3

    @tiny.quick_jit
    def ours(v):
        options = {"steps": 1, "learning_rate": rate, "batch_size": 4, "strength": 0.5}
        return noise_codes(KEY, autoencoder, v, forget, retain, **options)

    @tiny.quick_jit
    def slope(v):
        keys = jax.random.split(jax.random.fold_in(KEY, 0), 4)
        kept, own = (
            seen_of(keys[2], autoencoder, v, picked(k, data, 4))
            for k, data in zip(keys[:2], (retain, forget), strict=True)
        )
        seen = own.inputs["seen"]
        mean = mean_noise(keys[3], autoencoder, v, retain, seen).reshape(1, 4, -1)
        aim = jnp.where(seen[:, :, None], mean, 0).reshape(4, -1)
        predict = codes_objective(autoencoder).predict

        def loss(params):
            away = predict(params, own.inputs) - aim
            stay = predict(params, kept.inputs) - kept.targets
            return (jnp.sum(stay**2) + 0.5 * jnp.sum(away**2)) / 8

        return jax.grad(loss)(v.params["encoder"])

    after = ours(variables)
    change = jax.tree.map(jnp.subtract, after.params, variables.params)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(change["decoder"]))
    expected = ravel_pytree(slope(variables))[0]
    expected = -rate * expected / (jnp.abs(expected) + 1e-8)
    found = ravel_pytree(change["encoder"])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * rate)


def test_second_order_steps_solve_the_dense_model_of_codes():
    """(G + λ (F + δ)) d = −g with F the diagonal of retained images, by numpy."""
    autoencoder, variables, forget, retain = scene()
    solve = Solve("diagonal", 3.0, 0.4, products=80, points=3, kept=4)
    home = variables.params["encoder"]
    flat, back = ravel_pytree(home)

    @tiny.quick_jit
    def ours(v):
        return noise_codes_newton(KEY, autoencoder, v, forget, retain, solve=solve)

    @tiny.quick_jit
    def points(v):
        first, second, third, fourth, last = jax.random.split(KEY, 5)
        objective = codes_objective(autoencoder)
        stay = seen_of(second, autoencoder, v, picked(first, retain, 4))
        own = seen_of(fourth, autoencoder, v, picked(third, forget, 12))
        mean = mean_noise(fourth, autoencoder, v, retain, own.inputs["seen"])
        own = own._replace(targets=jnp.where(shown(own), mean, 0))
        own = picked(jax.random.fold_in(last, 0), own, 3)
        noise = jax.random.normal(second, stay.targets.shape, stay.targets.dtype)
        noise = jnp.where(shown(stay), noise, 0)
        told = [
            (
                objective.predict(v.params["encoder"], each.inputs) - each.targets,
                jax.jacrev(lambda x, d=each: objective.predict(back(x), d.inputs))(
                    flat
                ),
            )
            for each in (own, stay)
        ]
        return told, noise

    (own, stay), noise = points(variables)
    missing, jac = (np.asarray(each) for each in own)
    bend = np.einsum("nop,noq->pq", jac, jac) / 3
    slope = np.einsum("no,nop->p", missing, jac) / 3
    fisher = np.mean(np.einsum("no,nop->np", noise, stay[1]) ** 2, axis=0)
    model = bend + 3.0 * np.diag(fisher + 0.4 * fisher.mean())
    after = ours(variables)
    move = ravel_pytree(after.params["encoder"])[0] - flat
    assert np.abs(move).max() > 1e-4
    np.testing.assert_allclose(
        move, np.linalg.solve(model, -slope), rtol=1e-5, atol=1e-9
    )
    for one, other in zip(
        *map(jax.tree.leaves, (after.params["decoder"], variables.params["decoder"])),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
