import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax.train.augment import flip_crop


def possible(image, shift):
    """Every mirror image and crop that may be drawn, keyed by (mirrored, dy, dx)."""
    height, width, _ = image.shape
    found = {}
    for mirrored in (False, True):
        turned = image[:, ::-1] if mirrored else image
        padded = np.pad(
            turned, ((shift, shift), (shift, shift), (0, 0)), mode="reflect"
        )
        for dy in range(2 * shift + 1):
            for dx in range(2 * shift + 1):
                crop = padded[dy : dy + height, dx : dx + width]
                found[mirrored, dy - shift, dx - shift] = crop
    return found


def test_every_image_is_a_mirrored_or_shifted_copy_and_all_kinds_are_drawn(key):
    image = np.random.default_rng(0).standard_normal((5, 8, 2))
    many = jnp.asarray(np.broadcast_to(image, (600, 5, 8, 2)))
    drawn = np.asarray(flip_crop(key, many, shift=2))
    counts = {
        kind: int((drawn == crop).all(axis=(1, 2, 3)).sum())
        for kind, crop in possible(image, 2).items()
    }
    assert sum(counts.values()) == 600
    assert min(counts.values()) >= 1  # 12 expected of each of 50
    mirrored = sum(count for kind, count in counts.items() if kind[0])
    assert abs(mirrored - 300) < 4 * np.sqrt(600 / 4)


def test_images_of_one_batch_are_drawn_apart_and_the_key_decides(key):
    image = np.random.default_rng(0).standard_normal((8, 8, 1))
    batch = jnp.asarray(np.broadcast_to(image, (16, 8, 8, 1)))
    first, again = flip_crop(key, batch), flip_crop(key, batch)
    assert_trees_close(first, again, rtol=0)
    assert len(np.unique(np.asarray(first).reshape(16, -1), axis=0)) > 8
    assert np.any(first != flip_crop(jax.random.key(1), batch))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_dtype_and_shape_are_kept(key, dtype):
    images = jnp.ones((3, 8, 7, 2), dtype)
    assert_trees_close(flip_crop(key, images), images, rtol=0)


def test_channels_stay_together(key):
    channel = np.random.default_rng(0).standard_normal((4, 8, 8, 1))
    images = jnp.asarray(np.concatenate([channel, 2 * channel], axis=-1))
    drawn = flip_crop(key, images)
    assert_trees_close(drawn[..., 1], 2 * drawn[..., 0], rtol=0)
