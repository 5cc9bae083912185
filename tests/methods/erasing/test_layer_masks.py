"""Masks of layers on a quadratic, where what freezing does is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from scene import PROMPTS, scene, told

from unlearn_jax.methods.erasing.freeze_guard import freeze_as_guard, rounded
from unlearn_jax.methods.erasing.layer_masks import every_mask, grouped, tuned_under
from unlearn_jax.methods.erasing.memory_control import (
    front,
    hypervolume,
    nearest_ratio,
    ranked,
    remembered_by_text,
    searched,
)
from unlearn_jax.methods.erasing.tune import slope_of

KEY = jax.random.key(0)
START = {"a": jnp.zeros(2), "b": {"c": jnp.zeros(3), "d": jnp.zeros(1)}}
RULES = (("first", lambda path: path[0] == "a"), ("rest", lambda path: True))


def square(*names):
    """A loss whose least is at 1 in the named leaves, and which has no other."""

    def loss(key, params, constants):
        leaves = {"a": params["a"], **params["b"]}
        return constants * sum(jnp.mean((leaves[name] - 1) ** 2) for name in names)

    return loss


def test_a_group_that_is_not_free_stays_to_the_bit():
    groups = grouped(START, RULES)
    assert groups.names == ("first", "rest")
    assert jax.tree.leaves(groups.numbers) == [0, 1, 1]

    @tiny.quick_jit
    def after(free):
        slope = slope_of(square("a", "c", "d"))
        given = KEY, START, slope, jnp.ones(()), groups, free
        return tuned_under(*given, steps=3, learning_rate=0.1)

    for free in every_mask(2):
        moved = after(jnp.asarray(free))
        assert bool(jnp.all(moved["a"] == 0)) != free[0]
        assert bool(jnp.all(moved["b"]["c"] == 0)) != free[1]
    assert len(np.unique(every_mask(4), axis=0)) == 16
    with pytest.raises(ValueError, match="expected 1 to 16"):
        every_mask(17)
    with pytest.raises(ValueError, match="is of no group"):
        grouped(START, RULES[:1])
    with pytest.raises(ValueError, match="no parameter is of 'none'"):
        grouped(START, (("none", lambda path: False), *RULES))


def test_the_guard_freezes_what_only_the_target_needs():
    groups = grouped(START, RULES)

    @tiny.quick_jit
    def learnt(scale):
        losses = square("a"), square("c", "d")
        given = KEY, START, *losses, scale, groups
        return freeze_as_guard(*given, steps=60, user_rate=0.02)

    soft = np.asarray(learnt(jnp.ones(())))
    assert soft[0] > 0.8 > 0.4 > soft[1]
    np.testing.assert_array_equal(rounded(soft, 1), [True, False])
    assert rounded(soft, 0).sum() == 0
    with pytest.raises(ValueError, match="at most all"):
        rounded(soft, 3)


def test_the_turns_of_the_guard_are_those_of_its_two_formulas():
    """User and publisher each with a gradient of its own, as they are published."""
    groups, rates, heat, hold, share = grouped(START, RULES), (0.02, 0.1), 0.2, 1.0, 0.5
    steps, every = 7, 3

    def noisy_square(*names):
        plain = square(*names)

        def loss(key, params, constants):
            way = jax.random.normal(key, (2,), params["a"].dtype)
            return plain(key, params, constants) + 0.3 * way @ params["a"]

        return loss

    target, innocent = noisy_square("a"), noisy_square("c", "d")
    user, publisher = (optax.adam(rate) for rate in rates)

    def frozen(masks):
        return jax.nn.sigmoid(masks / heat)

    def seen(own, masks):
        held = groups.spread(frozen(masks))
        return jax.tree.map(lambda m, a, b: a + m * (b - a), held, own, home)

    def learns(own, masks, key):
        now = seen(own, masks)
        return (target(key, now, 1.0) + innocent(key, now, 1.0)) / 2

    def guards(masks, own, key):
        now = seen(own, masks)
        away = innocent(key, now, 1.0) - target(key, now, 1.0)
        return away / 2 + hold * (share - jnp.mean(frozen(masks))) ** 2

    own = home = START
    masks = jnp.zeros(2)
    memory, mask_memory = user.init(own), publisher.init(masks)
    for i in range(steps):
        first, second = jax.random.split(jax.random.fold_in(KEY, i))
        update, memory = user.update(jax.grad(learns)(own, masks, first), memory)
        part = groups.spread(1 - frozen(masks))
        own = jax.tree.map(lambda a, m, u: a + m * u, own, part, update)
        if (i + 1) % every == 0:
            slope = jax.grad(guards)(masks, own, second)
            update, mask_memory = publisher.update(slope, mask_memory)
            masks = masks + update

    @tiny.quick_jit
    def learnt(scale):
        given = KEY, START, target, innocent, scale, groups
        rates_of = {"user_rate": rates[0], "mask_rate": rates[1]}
        return freeze_as_guard(*given, steps=steps, every=every, **rates_of)

    found = learnt(jnp.ones(()))
    assert np.abs(np.asarray(found) - 0.5).max() > 0.1
    np.testing.assert_allclose(found, frozen(masks), rtol=1e-9)


def test_a_search_finds_the_front_when_it_may_ask_for_everything():
    random = np.random.default_rng(0)
    table = random.uniform(size=(16, 2))
    numbers = 2 ** np.arange(4)[::-1]
    judged = lambda mask: tuple(table[int(mask @ numbers)])  # noqa: E731
    asked, found = searched(1, judged, 4, budget=16)
    assert len(np.unique(asked, axis=0)) == 16
    best = front(found)
    for point in found[best]:
        assert not np.any(np.all(found < point, axis=1))
    for point in found[~best]:
        worse = np.all(found <= point, axis=1) & np.any(found < point, axis=1)
        assert worse.any()
    fewer = searched(1, judged, 4, budget=10)
    np.testing.assert_array_equal(fewer[0], asked[:10])
    # By counting cells of a fine grid.
    cells = (np.arange(400) + 0.5) / 400
    grid = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 1, 2)
    share = np.mean(np.any(np.all(table[None] <= grid, axis=2), axis=1))
    assert hypervolume(table, np.ones(2)) == pytest.approx(share, abs=5e-3)
    assert ranked([3.0, 1.0, 2.0], 2) == 2
    with pytest.raises(ValueError, match="list them"):
        searched(1, judged, 4, budget=17)


def test_a_copy_is_told_from_what_is_between_two():
    kept = np.array([[0.0, 0.0], [2.0, 0.0]])
    ratios = nearest_ratio(np.array([[0.0, 0.0], [1.0, 5.0]]), kept)
    np.testing.assert_allclose(ratios, [0, 1])


def test_what_a_text_recalls_is_the_length_of_its_direction():
    generator, variables = scene()
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    tokens = np.resize(PROMPTS.forget, (2, 3))
    found = remembered_by_text(
        generator, variables, jnp.asarray(image), jnp.array([5, 5]), jnp.asarray(tokens)
    )
    silent = told(image, 5, np.zeros(3, np.int32))
    expected = np.linalg.norm(told(image, 5, PROMPTS.forget[0]) - silent, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
