"""Rows of features and targets for tests of ridge regression; numpy's own solution."""

from typing import Any

import numpy as np

from unlearn_jax.types import Batch

F, K = 6, 2


def rows(n, seed=0, *, grid=True, f=F, k=K, dtype: Any = np.float64):
    """ReLU rows on a grid of 2⁻¹⁶ (or off it), one-hot targets, weight one each."""
    random = np.random.default_rng(seed)
    features = np.maximum(random.normal(size=(n, f)), 0) + 0.25
    if grid:
        features = np.round(features * 2.0**16) / 2.0**16
    targets = np.eye(k)[random.integers(0, k, n)]
    return Batch(features.astype(dtype), targets.astype(dtype), np.ones(n, dtype))


def part(batch, chosen):
    return Batch(*(leaf[chosen] for leaf in batch))


def join(*batches):
    return Batch(*(np.concatenate(leaves) for leaves in zip(*batches, strict=True)))


def weighted(batch, weights):
    return batch._replace(weights=np.asarray(weights, batch.weights.dtype))


def fresh(batch, l2):
    """The weights of a dense solve in float64 by numpy."""
    x, y, w = (np.asarray(leaf, np.float64) for leaf in batch)
    f = x.shape[1]
    root = np.sqrt(w)[:, None]
    wide = np.concatenate([root * x, np.sqrt(l2) * np.eye(f)])
    answers = np.concatenate([root * y, np.zeros((f, y.shape[1]))])
    return np.linalg.lstsq(wide, answers, rcond=None)[0]
