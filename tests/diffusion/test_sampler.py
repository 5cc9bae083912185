"""Samplers against Gaussian data, whose best denoiser is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.diffusion.sampler import sample
from unlearn_jax.diffusion.schedule import cosine_schedule, linear_schedule

MEAN, SPREAD = 0.4, 0.3
SHAPE = (4000, 1, 1, 1)


def best(schedule):
    """The noise that is expected given x_t, for pixels N(MEAN, SPREAD²)."""

    def predict(image, time):
        kept = schedule.signal[time][:, None, None, None]
        total = kept * SPREAD**2 + 1 - kept
        return jnp.sqrt(1 - kept) / total * (image - jnp.sqrt(kept) * MEAN)

    return predict


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_gaussian_data_come_out_with_their_mean_and_spread(eta, key):
    schedule = cosine_schedule(100)
    start_key, own = jax.random.split(key)
    start = jax.random.normal(start_key, SHAPE, jnp.float32)
    drawn = sample(
        own, best(schedule), schedule, start, steps=100, eta=eta, clip=None
    ).ravel()
    error = SPREAD / np.sqrt(len(drawn))
    # Beyond chance, the error of a hundred steps: 2 % of the spread.
    assert abs(drawn.mean() - MEAN) < 5 * error
    assert abs(drawn.std() - SPREAD) < 5 * error / np.sqrt(2) + 0.02 * SPREAD
    if eta == 0:  # Deterministic: a map that keeps the order of its seeds.
        assert np.diff(drawn[np.argsort(start.ravel())]).min() > -1e-5


def test_one_full_step_is_that_of_ddpm(key):
    schedule = linear_schedule(50)
    image = jnp.full(SHAPE, 0.7, jnp.float32)
    signal = np.asarray(schedule.signal, np.float64)
    t = 50
    alone = jnp.full((1,), t)

    def once(image, time):
        # Later steps tell no noise at all, so that only the first one draws.
        told = best(schedule)(image[:1], alone)
        return jnp.where(time[:, None, None, None] == t, told, 0)

    two = sample(key, once, schedule, image, steps=50, eta=1.0, clip=None)
    assert two.shape == SHAPE
    # Ho et al., eq. 6 and 7: the mean and the variance of q(x_{t-1} | x_t, x_0).
    noise = float(best(schedule)(image[:1], alone)[0, 0, 0, 0])
    clean = (0.7 - np.sqrt(1 - signal[t]) * noise) / np.sqrt(signal[t])
    beta = 1 - signal[t] / signal[t - 1]
    mean = (
        np.sqrt(signal[t - 1]) * beta * clean
        + np.sqrt(1 - beta) * (1 - signal[t - 1]) * 0.7
    ) / (1 - signal[t])
    variance = (1 - signal[t - 1]) / (1 - signal[t]) * beta
    # And the same by the formula that the sampler has, DDIM's eq. 12 with eta 1.
    towards = np.sqrt(1 - signal[t - 1] - variance)
    assert mean == pytest.approx(np.sqrt(signal[t - 1]) * clean + towards * noise)


def test_schedules_fall_from_one_and_what_is_impossible_is_refused(key):
    for schedule in (cosine_schedule(30), linear_schedule(30)):
        assert schedule.steps == 30
        assert schedule.signal[0] == 1
        assert np.all(np.diff(schedule.signal) < 0)
        assert schedule.signal[-1] > 0
    image = jnp.zeros((1, 1, 1, 1), jnp.float32)
    for options in ({"steps": 31}, {"eta": 1.5}):
        with pytest.raises(ValueError, match="at most the 30 times"):
            sample(key, best(schedule), schedule, image, **options)
    with pytest.raises(ValueError, match="steps"):
        linear_schedule(10)
