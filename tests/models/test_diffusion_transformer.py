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

    @jax.jit
    def told(variables, inputs):
        text = denoiser.encode(variables, inputs["tokens"])
        apart = denoiser.denoise(variables, inputs["image"], inputs["time"], text)
        features = denoiser.model.features(variables, inputs)
        return denoiser.model.apply(variables, inputs), apart, text, features

    return denoiser, start._replace(params=moved), inputs, told


def test_the_whole_is_the_encoder_and_the_network(made):
    _, variables, inputs, told = made
    noise, apart, text, features = told(variables, inputs)
    assert noise.shape == (3, 48)
    assert text.shape == (3, 4, 12)
    np.testing.assert_allclose(noise, apart, rtol=2e-4, atol=2e-5)
    assert features.shape == (3, 6, 8)


def test_text_enters_by_the_named_maps_alone(made):
    denoiser, variables, inputs, told = made
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
    assert jnp.abs(told(variables, inputs)[0] - told(variables, other)[0]).max() > 1e-2
    deaf = variables._replace(
        params=jax.tree.map(
            lambda leaf, own: leaf * (not own), variables.params, chosen
        )
    )
    np.testing.assert_array_equal(told(deaf, inputs)[0], told(deaf, other)[0])


def test_the_encoder_is_causal_and_time_and_place_matter(made):
    _, variables, inputs, told = made
    noise, _, text, _ = told(variables, inputs)
    later = inputs["tokens"].copy()
    later[:, 2] = (later[:, 2] + 1) % WORDS
    after = told(variables, {**inputs, "tokens": later})[2]
    moved = jnp.abs(after - text).max(axis=(0, 2))
    assert moved[:2].max() < 1e-6 < moved[2:].min()
    for name, changed in (
        ("time", inputs["time"][::-1].copy()),
        ("image", inputs["image"][:, :, ::-1].copy()),
    ):
        other = told(variables, {**inputs, name: changed})[0]
        assert jnp.abs(other - noise).max() > 1e-2


def test_a_patch_of_pixels_comes_back_to_its_place(made):
    """Where no block mixes places, noise at a pixel depends on its own patch alone."""
    _, variables, inputs, told = made

    def deaf(path, leaf):
        return leaf * ("attention" not in path)

    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: deaf(tree.path_names(path), leaf), variables.params
    )
    alone = variables._replace(params=params)
    same = {name: np.repeat(each[:1], 3, axis=0) for name, each in inputs.items()}
    places = ((0, 0), (1, 3), (3, 5))
    for example, (row, column) in enumerate(places):
        same["image"][example, row, column, 0] += 1.0
    plain = {name: np.repeat(each[:1], 3, axis=0) for name, each in inputs.items()}
    moved = np.abs(told(alone, same)[0] - told(alone, plain)[0])
    reached = moved.reshape(3, 4, 6, 2).max(-1) > 1e-6
    for example, (row, column) in enumerate(places):
        own = np.zeros((4, 6), bool)
        r, c = row // 2 * 2, column // 2 * 2
        own[r : r + 2, c : c + 2] = True
        np.testing.assert_array_equal(reached[example], own)


def test_sizes_that_do_not_fit_are_refused():
    for shape, options in (((5, 4, 1), {}), ((4, 4, 1), {"width": 10, "heads": 4})):
        with pytest.raises(ValueError, match="multiples of the patch"):
            diffusion_transformer(shape, WORDS, **options)
