"""How far two sets of images are apart, as Gaussians in a judge's features."""

import numpy as np
from jaxtyping import Float

from unlearn_jax.types import Array


def frechet(
    a: Float[Array | np.ndarray, "n f"], b: Float[Array | np.ndarray, "m f"]
) -> float:
    """Squared Fréchet distance of the Gaussians with the moments of two samples.

    ‖μ_a − μ_b‖² + tr(S_a + S_b − 2 (S_a^½ S_b S_a^½)^½), in float64.

    Unit: the features', squared, range 0 to infinity. Direction: down, but samples of
    one distribution are above 0 too, by about f / n: compare samples of the same size,
    and with oracle against oracle.

    Raises:
        ValueError: fewer than two rows.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017. Differs:
        features of a judge in place of Inception's.
    """
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"got {len(a)} and {len(b)} rows of features, expected at least two each: "
            "draw more images"
        )
    first, second = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    root = _root(first)
    both = np.trace(_root(root @ second @ root))
    gap = float(np.sum((a.mean(0) - b.mean(0)) ** 2))
    return max(gap + float(np.trace(first) + np.trace(second) - 2 * both), 0.0)


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
