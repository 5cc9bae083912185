"""Neighbours of the forgotten get their share of the retain loss, no more."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_words

from unlearn_jax.methods import make_request
from unlearn_jax.methods.decoupling import decoupled


def test_the_retain_loss_is_split_and_keeps_its_weight():
    request = make_request(tiny_words.examples(8), [0, 5])
    near = np.arange(8) < 3  # Example 0 is gone, so that two are left.
    found = decoupled(request, near, share=0.25)
    weights = np.asarray(found.retain.weights)
    assert weights.sum() == pytest.approx(6)
    assert weights[near].sum() == pytest.approx(1.5)
    assert weights[0] == weights[5] == 0
    losses = np.arange(8.0)
    mean = (weights * losses).sum() / weights.sum()
    others = [3, 4, 6, 7]
    expected = 0.75 * losses[others].mean() + 0.25 * losses[[1, 2]].mean()
    assert mean == pytest.approx(expected)
    for part, share, says in (
        (near, 1.0, "between 0 and 1"),
        (near[:3], 0.5, "one for each"),
        (np.arange(8) == 0, 0.5, "some of both"),
        (jnp.ones(8, bool), 0.5, "some of both"),
    ):
        with pytest.raises(ValueError, match=says):
            decoupled(request, part, share=share)
