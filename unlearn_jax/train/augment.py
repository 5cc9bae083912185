"""Random mirror images and shifts, drawn inside the training step."""

import jax
import jax.numpy as jnp

from unlearn_jax.types import Array, PRNGKey


def flip_crop(key: PRNGKey, images: Array, *, shift: int = 4) -> Array:
    """Mirror half of the images and move each by up to ``shift`` pixels.

    Args:
        key: Draws one mirror and one shift per image.
        images: (n, h, w, c); what enters at the border is a reflection.
        shift: Largest displacement in each direction [pixels].
    """
    n, height, width, channels = images.shape
    flip_key, shift_key = jax.random.split(key)
    mirrored = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
    images = jnp.where(mirrored, images[:, :, ::-1, :], images)
    around = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    padded = jnp.pad(images, around, mode="reflect")
    corners = jax.random.randint(shift_key, (n, 2), 0, 2 * shift + 1)

    def crop(image: Array, corner: Array) -> Array:
        begin = (corner[0], corner[1], jnp.zeros((), corner.dtype))
        return jax.lax.dynamic_slice(image, begin, (height, width, channels))

    return jax.vmap(crop)(padded, corners)
