"""The filters of unlearnable images in closed form, and the images without them."""

import numpy as np
import scipy.linalg
from jaxtyping import Float

from unlearn_jax.data.unlearnable import AnyArray, brightest_is_one, convolved


def filter_from_pairs(
    clean: Float[AnyArray, "n h w c"],
    filtered: Float[AnyArray, "n h w c"],
    *,
    size: int,
) -> Float[np.ndarray, "k k"]:
    """The filter that turns clean images into filtered ones, but for their brightness.

    With A_i the images x_i shifted to every place of the filter s, and y_i what came
    out, A_i s is a multiple of y_i. So s is the unit vector that minimises
    Σ_i ‖(I − ŷ_i ŷ_iᵀ) A_i s‖², an eigenvector of a matrix of k² × k² entries: no
    training and no model, from one pair on.

    Args:
        clean: A few images of one class as they were, in pixels from 0 to 1
            (``unlearnable.to_pixels``).
        filtered: The same images as they were released.
        size: Pixels along a side of the filter, odd; a larger one than the true is
            found with zeros around it.

    Returns:
        The filter, its largest entry 1.

    Raises:
        ValueError: shapes that differ, no image, an even size.

    Cost: k² shifts of the images and an eigendecomposition of k² × k².
    Source: no single one; total least squares with a free scale for each image.
    """
    clean, filtered = (np.asarray(part, np.float64) for part in (clean, filtered))
    if clean.shape != filtered.shape or not len(clean) or size % 2 == 0:
        raise ValueError(
            f"filter_from_pairs got images {clean.shape} and {filtered.shape} and size "
            f"{size}, expected the same images before and after, at least one, and an "
            "odd size"
        )
    places = np.eye(size * size).reshape(-1, size, size)
    shifted = np.stack([convolved(clean, one) for one in places], axis=-1)
    rows = shifted.reshape(len(clean), -1, size * size)
    seen = filtered.reshape(len(filtered), -1)
    length = np.linalg.norm(seen, axis=1, keepdims=True)
    seen = seen / np.where(length > 0, length, 1.0)
    along = np.einsum("np,npk->nk", seen, rows)
    apart = np.einsum("npk,npl->kl", rows, rows) - along.T @ along
    found = np.linalg.eigh(apart)[1][:, 0].reshape(size, size)
    return found / found.flat[np.argmax(np.abs(found))]


def unfiltered(
    images: Float[AnyArray, "n h w c"],
    kernel: Float[AnyArray, "k k"],
    *,
    noise: float = 1e-5,
) -> Float[np.ndarray, "n h w c"]:
    """Images without their filter: x = (KᵀK + noise I)⁻¹ Kᵀ y, the brightest pixel 1.

    K is the convolution with zeros beyond the border as a matrix of pixels; the formula
    is Wiener's for a white signal. Channels are solved alike; negative pixels of the
    solution are black.

    Args:
        images: As released, in pixels from 0 to 1.
        kernel: Their filter.
        noise: Variance of the noise over that of a pixel (no unit), positive. Rounding
            to 8 bits has 1 / (12 · 255²) = 1.3e-6, and a pixel some 0.1.

    Raises:
        ValueError: a noise that is not positive.

    Cost: one Cholesky factor of (pixels)² entries for all images of a filter: 6 MB for
        28 × 28 pixels.
    Source: no single one; the linear removal that a convolution invites.
    """
    if not noise > 0:
        raise ValueError(
            f"noise is {noise}, expected a positive share: filters have zeros, where "
            "nothing can be divided by"
        )
    images = np.asarray(images, np.float64)
    _, height, width, channels = images.shape
    pixels = height * width
    points = np.eye(pixels).reshape(pixels, height, width, 1)
    # Row i: what pixel i becomes, so this is Kᵀ.
    spread = convolved(points, kernel).reshape(pixels, pixels)
    normal = spread @ spread.T + noise * np.eye(pixels)
    factor = scipy.linalg.cho_factor(normal)
    columns = np.moveaxis(images, 3, 1).reshape(-1, pixels)
    found = scipy.linalg.cho_solve(factor, spread @ columns.T).T
    shaped = np.moveaxis(found.reshape(-1, channels, height, width), 1, 3)
    return brightest_is_one(np.maximum(shaped, 0.0))
