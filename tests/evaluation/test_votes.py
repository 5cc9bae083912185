"""Votes of a kernel: the dense solve, in float64, and chances that cost the least."""

import jax
import numpy as np
import pytest

from unlearn_jax.evaluation.votes import chances_by, fit_votes, votes_of
from unlearn_jax.types import Batch


def blobs(count, seed, spread=0.5):
    """Two classes around two pictures, which overlap a little."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    centres = np.where(np.arange(4).reshape(2, 2, 1) % 2, 1.0, -1.0)
    signs = np.where(labels, 1.0, -1.0)[:, None, None, None]
    images = signs * centres[None] + spread * random.normal(size=(count, 2, 2, 1))
    return Batch(images.astype(np.float32), labels, np.ones(count))


def test_votes_are_kernel_ridge_regression_on_signs():
    data, held = blobs(30, 0), blobs(20, 1)
    data = data._replace(weights=np.where(np.arange(30) < 24, 1.0, 0.0))
    votes = fit_votes(data, held, 2, reach=0.5, l2=0.1)
    x = np.asarray(data.inputs, np.float64)[:24].reshape(24, -1)
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    length = 0.5 * np.median(apart)
    assert float(votes.length) == pytest.approx(length, rel=1e-5)
    gram = np.exp(-(apart**2) / (2 * length**2)) + 0.1 * np.eye(24)
    signs = 2 * np.eye(2)[data.targets[:24]] - 1
    z = np.asarray(held.inputs, np.float64).reshape(20, -1)
    far = np.linalg.norm(z[:, None] - x[None], axis=2)
    expected = np.exp(-(far**2) / (2 * length**2)) @ np.linalg.solve(gram, signs)
    np.testing.assert_allclose(votes_of(votes, held.inputs), expected, atol=2e-4)


def test_no_other_sharpness_costs_held_out_images_less():
    data, held = blobs(60, 0, spread=1.0), blobs(60, 1, spread=1.0)
    votes = fit_votes(data, held, 2)

    def nats(factor):
        other = votes._replace(sharpness=factor * votes.sharpness)
        chances = np.asarray(jax.jit(chances_by)(other, held.inputs))
        return -np.mean(np.log(chances[np.arange(60), held.targets]))

    assert nats(1.0) < min(nats(0.7), nats(1.4))


def test_what_cannot_be_fitted_is_refused():
    data = blobs(4, 0)
    with pytest.raises(ValueError, match="reach"):
        fit_votes(data, data, 2, reach=0.0)
    with pytest.raises(ValueError, match="expected some of either"):
        fit_votes(data, data._replace(weights=np.zeros(4)), 2)
