"""The diffusion transformer: text enters by key and value maps, and by nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax import tree
from unlearn_jax.models.diffusion_transformer import diffusion_transformer

WORDS = 9


@pytest.fixture(scope="module")
def made():
    denoiser = diffusion_transformer(
        (4, 6, 2),
        WORDS,
        tokens=4,
        depth=2,
        width=8,
        heads=2,
        text_width=12,
        text_depth=1,
    )
    start = denoiser.model.init(jax.random.key(0))
    # The last map begins at zero: away from there, so that something is told.
    moved = tree.add(
        start.params,
        tree.scale(
            0.3, tree.random_like(jax.random.key(1), start.params, jax.random.normal)
        ),
    )
    random = np.random.default_rng(0)
    inputs = {
        "image": random.normal(size=(3, 4, 6, 2)).astype(np.float32),
        "time": np.array([1, 50, 200], np.int32),
        "tokens": random.integers(0, WORDS, (3, 4)).astype(np.int32),
    }
    return denoiser, start._replace(params=moved), inputs, jax.jit(denoiser.model.apply)


def test_the_whole_is_the_encoder_and_the_network(made):
    denoiser, variables, inputs, apply = made
    noise = apply(variables, inputs)
    assert noise.shape == (3, 48)
    text = denoiser.encode(variables, inputs["tokens"])
    assert text.shape == (3, 4, 12)
    apart = denoiser.denoise(variables, inputs["image"], inputs["time"], text)
    np.testing.assert_allclose(noise, apart, rtol=2e-4, atol=2e-5)
    features = denoiser.model.features(variables, inputs)
    assert features.shape == (3, 6, 8)


def test_text_enters_by_the_named_maps_alone(made):
    denoiser, variables, inputs, apply = made
    chosen = tree.select(variables.params, denoiser.reads_text)
    maps = [
        leaf
        for leaf, own in zip(
            jax.tree.leaves(variables.params), jax.tree.leaves(chosen), strict=True
        )
        if own
    ]
    assert [leaf.shape for leaf in maps] == [(12, 8)] * 4
    other = {**inputs, "tokens": (inputs["tokens"] + 1) % WORDS}
    assert jnp.abs(apply(variables, inputs) - apply(variables, other)).max() > 1e-2
    deaf = variables._replace(
        params=jax.tree.map(
            lambda leaf, own: leaf * (not own), variables.params, chosen
        )
    )
    np.testing.assert_array_equal(apply(deaf, inputs), apply(deaf, other))


def test_the_encoder_is_causal_and_time_and_place_matter(made):
    denoiser, variables, inputs, apply = made
    text = denoiser.encode(variables, inputs["tokens"])
    later = inputs["tokens"].copy()
    later[:, 2] = (later[:, 2] + 1) % WORDS
    moved = jnp.abs(denoiser.encode(variables, later) - text).max(axis=(0, 2))
    assert moved[:2].max() < 1e-6 < moved[2:].min()
    noise = apply(variables, inputs)
    for name, changed in (
        ("time", inputs["time"][::-1].copy()),
        ("image", inputs["image"][:, :, ::-1].copy()),
    ):
        assert jnp.abs(apply(variables, {**inputs, name: changed}) - noise).max() > 1e-2


def test_a_patch_of_pixels_comes_back_to_its_place():
    """With no block to mix places, noise at a pixel depends on its own patch alone."""
    denoiser = diffusion_transformer(
        (4, 4, 1),
        WORDS,
        tokens=2,
        depth=1,
        width=8,
        heads=2,
        text_depth=1,
        text_width=4,
    )
    variables = denoiser.model.init(jax.random.key(0))
    params = tree.add(
        variables.params,
        tree.random_like(jax.random.key(1), variables.params, jax.random.normal),
    )
    block = params["network"]["blocks"][0]
    block["attention"]["out"]["kernel"] *= 0
    text = jnp.zeros((1, 2, 4))

    def noise(image):
        return denoiser.denoise(
            variables._replace(params=params), image, jnp.ones(1, jnp.int32), text
        )

    moved = jax.jacobian(noise)(jnp.ones((1, 4, 4, 1)))[0, :, 0, :, :, 0]
    for row, column in ((0, 0), (1, 3), (2, 1)):
        reached = np.abs(moved.reshape(4, 4, 4, 4)[:, :, row, column]) > 0
        own = np.zeros((4, 4), bool)
        r, c = row // 2 * 2, column // 2 * 2
        own[r : r + 2, c : c + 2] = True
        np.testing.assert_array_equal(reached, own)


def test_sizes_that_do_not_fit_are_refused():
    for shape, options in (((5, 4, 1), {}), ((4, 4, 1), {"width": 10, "heads": 4})):
        with pytest.raises(ValueError, match="multiples of the patch"):
            diffusion_transformer(shape, WORDS, **options)
