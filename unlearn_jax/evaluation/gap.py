"""The gap to the oracle with its uncertainty, and the floor no method can go under.

Three seeds nest in every number: the training seed makes an original and its oracle,
the unlearning seed drives the method, the evaluation seed draws subsets and folds. Only
training seeds are independent repetitions, so the inner levels are averaged first and
the interval runs over training seeds alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from unlearn_jax.evaluation.outputs import check_finite

Numbers = Float[np.ndarray, "..."]


class Gap(NamedTuple):
    """Value: unlearned minus oracle, in the metric's own unit.

    Attributes:
        per_seed: (I,) differences, one per training seed.
        mean: Their mean.
        standard_error: Of the mean, over training seeds; infinite for one seed.
        low: Lower end of the 95% interval; -inf for one seed.
        high: Upper end; inf for one seed.
    """

    per_seed: Float[np.ndarray, " i"]
    mean: float
    standard_error: float
    low: float
    high: float


class Floor(NamedTuple):
    """Value: how far apart oracles lie by their training seed alone.

    Attributes:
        mean_absolute_difference: Over all distinct pairs of oracles.
        half_width: The mean difference of I paired seeds of two oracles lies within
            plus or minus this in 95 of 100 cases.
        deviation: Standard deviation over the oracles.
        mean: Over the oracles.
        oracles: How many (count).
    """

    mean_absolute_difference: float
    half_width: float
    deviation: float
    mean: float
    oracles: int


def gap(
    values: Float[np.ndarray, "i j k"], oracle_values: Float[np.ndarray, "i k"]
) -> Gap:
    """Mean difference to the oracle of the same training seed, with a 95% interval.

        d_i = mean_jk values[i, j, k] - mean_k oracle[i, k]
        mean d  +-  t(0.975, I - 1) s / sqrt(I)

    Student's t assumes that the I differences are near Gaussian. What the inner seeds
    leave of their noise shows between training seeds too, and so is covered; one
    training seed tells nothing and gives an infinite interval, never an empty one.

    Args:
        values: By training seed, unlearning seed, evaluation seed.
        oracle_values: By training seed and evaluation seed, the same ones.

    Raises:
        ValueError: shapes do not fit, or a value is NaN or infinite.
    """
    shape = (values.shape[0], values.shape[2])
    if oracle_values.shape != shape or values.size == 0:
        raise ValueError(
            f"values {values.shape} need oracle values of shape {shape} and at least "
            f"one seed at each level, got {oracle_values.shape}"
        )
    check_finite("values", values, oracle_values)
    differences = values.mean(axis=(1, 2)) - oracle_values.mean(axis=1)
    mean, seeds = float(differences.mean()), differences.size
    if seeds < 2:
        return Gap(differences, mean, np.inf, -np.inf, np.inf)
    error = float(differences.std(ddof=1) / np.sqrt(seeds))
    reach = _t_quantile(seeds - 1) * error
    return Gap(differences, mean, error, mean - reach, mean + reach)


def floor(oracle_values: Float[np.ndarray, " m"], *, seeds: int) -> Floor:
    """Oracle against oracle: the spread that retraining itself has.

        half width = t(0.975, m - 1) s sqrt(2 / I)

    with s the deviation over m independent oracles: the 95% prediction interval for the
    mean difference of I pairs of fresh oracles, exact for Gaussian values.

    Args:
        oracle_values: One value per oracle (evaluation seeds averaged).
        seeds: Training seeds I that the comparison averages over (count).

    Raises:
        ValueError: fewer than two oracles, no seed, or a value is not finite.
    """
    if oracle_values.size < 2 or seeds < 1:
        raise ValueError(
            "a floor needs two oracles and one seed or more, got "
            f"{oracle_values.size} and {seeds}"
        )
    check_finite("values", oracle_values)
    first, second = np.triu_indices(oracle_values.size, k=1)
    apart = np.abs(oracle_values[first] - oracle_values[second])
    deviation = float(oracle_values.std(ddof=1))
    reach = _t_quantile(oracle_values.size - 1) * deviation * np.sqrt(2.0 / seeds)
    mean, count = float(oracle_values.mean()), oracle_values.size
    return Floor(float(apart.mean()), float(reach), deviation, mean, count)


def _t_quantile(degrees: int) -> float:
    return float(stdtrit(degrees, 0.975))
