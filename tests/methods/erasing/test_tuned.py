"""Methods on images and on other targets: first steps and masks by the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scene import (
    KEY,
    PROMPTS,
    change,
    chosen,
    images,
    is_first_step,
    jacobian,
    scene,
    told,
)

from unlearn_jax.diffusion.draws import draw, noised
from unlearn_jax.methods.erasing.all_but_one import all_but_one
from unlearn_jax.methods.erasing.amnesia import amnesia, surrogate
from unlearn_jax.methods.erasing.ascent import few_shot
from unlearn_jax.methods.erasing.esd import erasing
from unlearn_jax.methods.erasing.images import noisy
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.salun import salient, salun

RATE = 1e-3
ONE = {"steps": 1, "learning_rate": RATE, "batch_size": 2}


def slope_at(batch, targets=None):
    """Mean gradient of ½ ‖ε − target‖² of noised examples."""
    targets = batch.targets if targets is None else targets
    total = 0
    for row in range(len(batch.weights)):
        seen = batch.inputs["image"][row][None], batch.inputs["time"][row]
        given = *seen, batch.inputs["tokens"][row]
        missing = told(*given) - np.asarray(targets[row])[None]
        total = total + np.einsum("mk,mkp->p", missing, jacobian(*given))
    return total / len(batch.weights)


def test_all_but_one_begins_towards_the_anchor_and_lets_the_rest_be():
    generator, variables = scene()
    pool = erasing(jax.random.split(KEY)[0], generator, variables, PROMPTS, ways=1)

    @tiny.quick_jit
    def erased(v):
        return all_but_one(KEY, generator, v, PROMPTS, ways=1, **ONE)

    image = pool.inputs["image"]
    wanted = told(image, 20, PROMPTS.anchor[0])
    is_first_step(erased(variables), slope_at(pool, wanted), "x", RATE)


def test_few_shot_ascends_on_the_first_images_with_the_encoder_alone():
    generator, variables = scene()
    given = images()

    @tiny.quick_jit
    def erased(v):
        return few_shot(KEY, generator, v, given, shots=3, **ONE)

    few = jax.tree.map(lambda leaf: leaf[:3], given.forget)
    batch = noisy(jax.random.fold_in(KEY, 0), generator, few, 2)
    is_first_step(erased(variables), -slope_at(batch), "text", RATE)
    with pytest.raises(ValueError, match="at least 6"):
        few_shot(KEY, generator, variables, given, shots=6)


def test_salun_begins_towards_the_other_caption_inside_of_its_mask():
    generator, variables = scene()
    given = images(1)
    options = {**ONE, "retain_weight": 0.0, "fraction": 0.25, "points": 4}

    @tiny.quick_jit
    def erased(v):
        return salun(KEY, generator, v, given, **options)

    after = change(erased(variables))
    inside = chosen("network")
    moved = after != 0
    assert not np.any(moved & ~inside)
    # The mask by numpy: the largest of |mean gradient| over forgotten images.
    first, second = jax.random.split(KEY)
    ranked = np.abs(
        slope_at(noisy(jax.random.split(first)[0], generator, given.forget, 4))
    )
    ranked[~inside] = -1
    count = round(0.25 * inside.sum())
    least = np.sort(ranked)[-count]
    np.testing.assert_array_equal(moved, ranked >= least)
    # And the step, on one image at two times: keys as the loss splits them.
    _, drawn, _ = jax.random.split(jax.random.fold_in(second, 0), 3)
    twice = jax.tree.map(lambda leaf: np.repeat(leaf, 2, 0), given.forget)
    draws = draw(drawn, generator.schedule, jnp.asarray(twice.inputs), drop=0.0)
    batch = noised(generator.schedule, twice, draws)
    other = [
        told(
            batch.inputs["image"][i][None], batch.inputs["time"][i], PROMPTS.anchor[0]
        )[0]
        for i in range(2)
    ]
    slope = slope_at(batch, other)
    expected = -RATE * slope / (np.abs(slope) + 1e-8)
    np.testing.assert_allclose(after[moved], expected[moved], atol=1e-5 * RATE)


@pytest.mark.slow
def test_masks_are_of_one_size_and_rank_by_what_they_say():
    generator, variables = scene()
    moves = part_of(generator.denoiser, variables.params, "network")
    inside = chosen("network")

    @tiny.quick_jit
    def masks(v):
        def one(saliency):
            options = {"moves": moves, "saliency": saliency, "points": 4}
            return salient(KEY, generator, v, images(), fraction=0.5, **options)

        return [one(name) for name in ("gradient", "second_order", "random")]

    flat = [np.asarray(ravel_pytree(mask)[0]) > 0 for mask in masks(variables)]
    for mask in flat:
        assert mask.sum() == round(0.5 * inside.sum())
        assert not np.any(mask & ~inside)
    keys = jax.random.split(KEY)
    own, kept = (
        noisy(key, generator, data, 4)
        for key, data in zip(keys, (images().forget, images().retain), strict=True)
    )
    slope = slope_at(own)
    alone = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], kept) for i in range(4)]
    each = list(map(slope_at, alone))
    fisher = np.mean(np.square(each), axis=0)
    with np.errstate(divide="ignore"):  # What costs nothing comes first.
        gain = np.where(slope == 0, 0, slope**2 / np.where(slope == 0, 1, fisher))
    least = np.sort(gain[inside])[-flat[1].sum()]
    np.testing.assert_array_equal(flat[1][inside], gain[inside] >= least)
    assert np.any(flat[0] != flat[1])
    with pytest.raises(ValueError, match="choose from gradient, second_order"):
        salient(KEY, generator, variables, images(), moves=moves, saliency="top")


@pytest.mark.slow
def test_amnesia_begins_towards_the_surrogate_and_curvature_draws_back():
    generator, variables = scene()
    options = {**ONE, "replay_weight": 0.0, "memories": 2, "points": 2}

    @tiny.quick_jit
    def erased(v):
        return [
            amnesia(KEY, generator, v, PROMPTS, weight=weight, **{**options, **more})
            for weight, more in (
                (0.0, {}),
                (0.0, {"steps": 30}),
                (1e6, {"steps": 30}),
                (1e6, {"steps": 30, "kind": "ekfac"}),
            )
        ]

    one, free, held, turned = erased(variables)
    own = jax.random.split(jax.random.fold_in(jax.random.split(KEY, 3)[2], 0))[0]
    batch = surrogate(own, generator, jnp.asarray(PROMPTS.forget), 2)
    assert np.abs(batch.targets).max() > 1
    is_first_step(one, slope_at(batch), "all", RATE)
    far = [np.linalg.norm(change(each)) for each in (free, held, turned)]
    assert max(far[1:]) < 0.7 * far[0]
