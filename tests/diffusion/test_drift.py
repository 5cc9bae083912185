"""Drift of the prediction without a prompt: the formula, and what it does not read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.diffusion.draws import draw
from unlearn_jax.diffusion.drift import silent_drift
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Batch, Variables

SCHEDULE, KEY = cosine_schedule(20), jax.random.key(3)


@pytest.fixture(scope="module")
def pair():
    sizes = {"depth": 1, "width": 8, "heads": 2, "text_width": 4, "text_depth": 1}
    denoiser = diffusion_transformer((4, 4, 1), 7, tokens=3, **sizes)
    first = denoiser.model.init(jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape),
        first.params,
    )
    return denoiser, Variables(params, {})


def batch(captions):
    images = np.random.default_rng(0).uniform(-1, 1, (6, 4, 4, 1)).astype(np.float32)
    return Batch(images, captions, np.ones(6, np.float32))


def moved(variables, by):
    return Variables(jax.tree.map(lambda leaf: leaf + by, variables.params), {})


def test_it_is_the_share_of_the_null_prompts_prediction_that_changed(pair):
    denoiser, variables = pair
    other, data = moved(variables, 0.05), batch(np.full((6, 3), 4, np.int32))
    found = silent_drift(KEY, denoiser, SCHEDULE, data)(variables, other)
    draws = draw(KEY, SCHEDULE, jnp.asarray(data.inputs), drop=1.0)
    kept = np.asarray(SCHEDULE.signal)[np.asarray(draws.times)][:, None, None, None]
    seen = np.sqrt(kept) * data.inputs + np.sqrt(1 - kept) * np.asarray(draws.noise)
    null = np.zeros((6, 3), np.int32)
    inputs = {"image": seen, "time": draws.times, "tokens": null}
    before, after = (denoiser.model.apply(v, inputs) for v in (variables, other))
    expected = np.sum((after - before) ** 2) / np.sum(np.asarray(before) ** 2)
    assert expected > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_it_is_nothing_for_the_same_and_reads_no_caption(pair):
    denoiser, variables = pair
    told = [
        silent_drift(KEY, denoiser, SCHEDULE, batch(np.full((6, 3), token, np.int32)))
        for token in (1, 5)
    ]
    assert float(told[0](variables, variables)) == 0
    other = moved(variables, 0.05)
    first, second = (float(each(variables, other)) for each in told)
    assert first == second > 0
