"""Adapt-then-Unlearn: its Fisher is dense, and repulsion keeps away in its metric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.generators.duel import Rates, duel
from unlearn_jax.methods.erasing.repulsion import (
    adapt_then_unlearn,
    image_fisher,
    repelled,
)
from unlearn_jax.models.adversarial import adversarial
from unlearn_jax.types import Batch

KEY = jax.random.key(2)
FEW = {"adapt": Rates(steps=4, batch_size=4), "points": 8, "adapted": 2}


def scene():
    gan = adversarial((2, 2, 1), codes=2, widths=(3,), dtype=jnp.float64)
    drawn = np.random.default_rng(0).uniform(-1, 1, (10, 2, 2, 1))
    parts = [
        Batch(jnp.asarray(each), jnp.zeros(len(each)), jnp.ones(len(each)))
        for each in (drawn[:4], drawn[4:])
    ]
    return gan, gan.init(KEY), *parts


def test_the_fisher_of_images_is_that_of_unit_noise_around_them():
    gan, variables, *_ = scene()
    flat, back = ravel_pytree(variables.params["generator"])

    @tiny.quick_jit
    def both(flat):
        first, second = jax.random.split(KEY)
        codes = jax.random.normal(first, (8, 2), jnp.float64)
        noise = jax.random.normal(second, (8, 4), jnp.float64)
        told = lambda x: gan.images(back(x), codes).reshape(8, -1)  # noqa: E731
        slopes = jnp.einsum("nkp,nk->np", jax.jacrev(told)(flat), noise)
        found = image_fisher(KEY, gan, back(flat), 8)
        return ravel_pytree(found)[0], jnp.mean(slopes**2, axis=0)

    found, expected = both(flat)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_without_repulsion_it_trains_on_what_is_desired():
    gan, variables, undesired, desired = scene()
    rates = Rates(steps=3, batch_size=4)

    @tiny.quick_jit
    def both(v):
        given = gan, v, undesired, desired
        ours = adapt_then_unlearn(KEY, *given, strength=0.0, unlearn=rates, **FEW)
        _, _, third = jax.random.split(KEY, 3)
        return ours, duel(third, gan, v, desired, rates)

    ours, plain = both(variables)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_repulsion_alone_goes_the_way_that_its_metric_says():
    """One step is along w (θ* − θ_N), away from where negatives led."""
    gan, variables, undesired, desired = scene()
    rates = Rates(steps=1, batch_size=4, learning_rate=1e-3)

    @tiny.quick_jit
    def moved(v):
        def one(metric):
            given = gan, v, undesired, desired
            options = {"strength": 1e9, "metric": metric, "form": "negative"}
            after = adapt_then_unlearn(KEY, *given, **options, unlearn=rates, **FEW)
            return ravel_pytree(after.params["generator"])[0]

        return [one(metric) for metric in ("euclidean", "fisher")]

    @tiny.quick_jit
    def bad(v):
        first, second, _ = jax.random.split(KEY, 3)
        home = v.params["generator"]
        matrix = ravel_pytree(image_fisher(first, gan, home, 8))[0]
        matrix = matrix / jnp.mean(matrix)

        def tie(own, given):
            gap = ravel_pytree(own)[0] - ravel_pytree(given)[0]
            return 0.5 * jnp.sum(matrix * gap**2)

        def one(key):
            options = {"tether": tie, "given": home}
            after = duel(key, gan, v, undesired, FEW["adapt"], **options)
            return ravel_pytree(after.params["generator"])[0]

        found = jax.lax.map(one, jax.random.split(second, 2))
        return matrix, jnp.mean(found, axis=0)

    home = np.asarray(ravel_pytree(variables.params["generator"])[0])
    matrix, mean = bad(variables)
    along = home - np.asarray(mean)
    for after, weights in zip(moved(variables), (1, np.asarray(matrix)), strict=True):
        way, change = along * weights, np.asarray(after) - home
        clear = np.abs(way) > 1e-9 * np.abs(way).max()
        np.testing.assert_array_equal(np.sign(change[clear]), np.sign(way[clear]))


def test_forms_and_their_names():
    assert repelled(2.0, "negative") == -2
    assert repelled(2.0, "inverse") == 0.5
    np.testing.assert_allclose(repelled(2.0, "exponential"), np.exp(-2))
    with pytest.raises(ValueError, match="metric"):
        adapt_then_unlearn(KEY, *scene(), metric="manhattan")
