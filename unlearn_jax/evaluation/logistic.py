"""Logistic regression on one feature, with balanced classes, by Newton's method."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from unlearn_jax.evaluation.outputs import check_finite

STEPS = 50


class Logistic(NamedTuple):
    """Value: log-odds of membership, ``slope * (x - centre) / spread + intercept``."""

    slope: float
    intercept: float
    centre: float
    spread: float


def fit_logistic(
    feature: Float[np.ndarray, " n"], member: Bool[np.ndarray, " n"], *, l2: float = 1.0
) -> Logistic:
    """Minimise the class-balanced logistic loss of one standardised feature.

        sum_i w_i log(1 + exp(-s_i (a x_i + b))) + l2/2 a^2,   w_i = n / (2 n_class)

    with s_i = +1 for members and -1 for others. The intercept is free. A constant
    feature gives slope 0 and even odds.

    Args:
        feature: One number per example; its mean and deviation are taken out first.
        member: Which examples are members.
        l2: Coefficient of half the squared slope; finite if separable (no unit).

    Raises:
        ValueError: a class is empty, or a value is not finite.

    Cost: about ten passes over the n numbers.
    Source: scikit-learn's LogisticRegression with class_weight "balanced" and its
        default C = 1. Differs: the feature is standardised, so that the penalty does
        not depend on its unit.
    """
    counts = np.array([np.sum(~member), np.sum(member)])
    if counts.min() == 0:
        raise ValueError("logistic regression needs both members and non-members")
    check_finite("values of the feature", feature)
    centre, spread = float(feature.mean()), float(feature.std())
    if spread <= 1e-12 * max(abs(centre), 1e-300):
        return Logistic(0.0, 0.0, centre, 1.0)
    x = (feature - centre) / spread
    weight = feature.size / (2.0 * counts[member.astype(int)])
    theta, value = np.zeros(2), feature.size * np.log(2.0)
    for _ in range(STEPS):
        odds = np.clip(theta[0] * x + theta[1], -700.0, 700.0)
        p = 1.0 / (1.0 + np.exp(-odds))
        slack, curvature = weight * (p - member), weight * p * (1.0 - p)
        gradient = np.array([np.sum(slack * x) + l2 * theta[0], np.sum(slack)])
        cross, bend = np.sum(curvature * x), np.sum(curvature * x**2) + l2
        hessian = np.array([[bend, cross], [cross, np.sum(curvature)]])
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        decrement = float(gradient @ step)
        if decrement <= 1e-14 * feature.size:
            break
        for rate in 0.5 ** np.arange(20):
            trial = _loss(theta - rate * step, x, member, weight, l2)
            if trial <= value - 0.25 * rate * decrement:
                break
        else:  # no descent left above rounding
            break
        theta, value = theta - rate * step, trial
    return Logistic(float(theta[0]), float(theta[1]), centre, spread)


def log_odds(model: Logistic, feature: Float[np.ndarray, " n"]) -> np.ndarray:
    """Log-odds of membership in nats; positive means judged a member."""
    return model.slope * (feature - model.centre) / model.spread + model.intercept


def _loss(
    theta: np.ndarray, x: np.ndarray, member: np.ndarray, weight: np.ndarray, l2: float
) -> float:
    odds = theta[0] * x + theta[1]
    log_losses = np.logaddexp(0.0, np.where(member, -odds, odds))
    return float(np.sum(weight * log_losses) + 0.5 * l2 * theta[0] ** 2)
