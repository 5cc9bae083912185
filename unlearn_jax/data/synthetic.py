"""Problems with known answers: quadratic, linear regression, Gaussian classes.

``sizes`` is (train, test) everywhere; the draws come from numpy's PCG64, so a seed
means the same numbers on every platform.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unlearn_jax.data.batch import Dataset, Splits, from_arrays


def quadratic(
    seed: int,
    sizes: tuple[int, int],
    *,
    eigenvalues: Sequence[float] = (1.0, 0.3, 0.1, 0.03, 0.01),
    dtype: Any = np.float32,
) -> Dataset:
    """Noise-free regression whose curvature is chosen: Xᵀ X / n = diag(eigenvalues).

    Targets are the sum of the features, so every weight of the minimum is 1 and the
    mean of half the squared errors at w is Σ eigenvalue (w - 1)² / 2, on the training
    set exactly.

    Args:
        seed: What the inputs depend on.
        sizes: Train and test examples; at least as many train examples as eigenvalues.
        eigenvalues: Positive, one per feature.
        dtype: float32 or float64, of inputs, targets and weights.

    Returns:
        Dataset; inputs (n, f), targets (n, 1).

    Raises:
        ValueError: fewer train examples than features, or a size under 1.
    """
    _check_sizes(sizes)
    train, test = sizes
    features = len(eigenvalues)
    if train < features:
        raise ValueError(
            f"quadratic got {train} train examples for {features} eigenvalues, "
            "expected at least one each: raise the size"
        )
    random = np.random.Generator(np.random.PCG64(seed))
    scales = np.sqrt(np.asarray(eigenvalues, np.float64))
    basis, _ = np.linalg.qr(random.standard_normal((train, features)))
    inputs = np.concatenate(
        [np.sqrt(train) * basis, random.standard_normal((test, features))]
    )
    inputs = inputs * scales[None, :]
    targets = inputs.sum(axis=1, keepdims=True)
    return _regression("quadratic", "Quadratic", inputs, targets, train, dtype)


def linear_regression(
    seed: int,
    sizes: tuple[int, int],
    *,
    features: int = 5,
    outputs: int = 1,
    noise: float = 0.1,
    dtype: Any = np.float32,
) -> Dataset:
    """Gaussian inputs, targets X W + noise, with W = ``linear_weights`` of the seed.

    Args:
        seed: What inputs, weights and noise depend on.
        sizes: Train and test examples.
        features: Columns of the inputs.
        outputs: Columns of the targets.
        noise: Standard deviation of the Gaussian added to each target.
        dtype: float32 or float64, of inputs, targets and weights.

    Returns:
        Dataset; inputs (n, features) of unit variance, targets (n, outputs).

    Raises:
        ValueError: a size under 1.
    """
    _check_sizes(sizes)
    weights = linear_weights(seed, features=features, outputs=outputs)
    random = np.random.Generator(np.random.PCG64([seed, 1]))
    inputs = random.standard_normal((sum(sizes), features))
    errors = random.standard_normal((sum(sizes), outputs))
    targets = inputs @ weights + noise * errors
    title = "Linear regression (synthetic)"
    return _regression("linear_regression", title, inputs, targets, sizes[0], dtype)


def linear_weights(seed: int, *, features: int = 5, outputs: int = 1) -> np.ndarray:
    """The weights behind ``linear_regression``: float64, (features, outputs)."""
    random = np.random.Generator(np.random.PCG64([seed, 0]))
    return random.standard_normal((features, outputs))


def gaussian_classes(
    seed: int,
    sizes: tuple[int, int],
    *,
    classes: int = 4,
    features: int = 8,
    separation: float = 3.0,
    dtype: Any = np.float32,
) -> Dataset:
    """Gaussian clouds of unit covariance around ``gaussian_means``, classes balanced.

    The best classifier is known and linear: logits x · mean - ‖mean‖² / 2. Any two
    means lie √2 ``separation`` apart.

    Args:
        seed: What the draws depend on.
        sizes: Train and test examples.
        classes: Number of clouds.
        features: Columns of the inputs, at least ``classes``.
        separation: Distance of each mean from the origin (standard deviations).
        dtype: float32 or float64, of inputs and weights.

    Returns:
        Dataset; inputs (n, features), targets int32 (n,).

    Raises:
        ValueError: fewer features than classes, or a size under 1.
    """
    _check_sizes(sizes)
    means = gaussian_means(classes=classes, features=features, separation=separation)
    random = np.random.Generator(np.random.PCG64(seed))
    labels = [random.permutation(np.arange(size) % classes) for size in sizes]
    batches = [
        from_arrays(
            (means[y] + random.standard_normal((len(y), features))).astype(dtype), y
        )
        for y in labels
    ]
    return Dataset(
        name="gaussian_classes",
        title="Gaussian classes",
        task="classification",
        classes=classes,
        splits=Splits(*batches),
    )


def gaussian_means(
    *, classes: int = 4, features: int = 8, separation: float = 3.0
) -> np.ndarray:
    """The means behind ``gaussian_classes``: float64, (classes, features)."""
    if features < classes:
        raise ValueError(
            f"gaussian_classes got {features} features for {classes} classes, expected "
            "at least one each: raise the number of features"
        )
    return separation * np.eye(classes, features)


def _check_sizes(sizes: tuple[int, int]) -> None:
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(
            f"got sizes {tuple(sizes)}, expected a train and a test count of at least "
            "1 each: change the sizes"
        )


def _regression(
    name: str, title: str, inputs: Any, targets: Any, train: int, dtype: Any
) -> Dataset:
    inputs, targets = inputs.astype(dtype), targets.astype(dtype)
    return Dataset(
        name=name,
        title=title,
        task="regression",
        classes=targets.shape[1],
        splits=Splits(
            from_arrays(inputs[:train], targets[:train]),
            from_arrays(inputs[train:], targets[train:]),
        ),
    )
