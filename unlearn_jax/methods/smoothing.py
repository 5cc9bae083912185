"""A loss at its worst, or on average, in a neighbourhood of the weights.

What was forgotten comes back when weights move a little; these make the forget loss
flat. All derivatives are real ones: perturbed parameters are built, never stepped to
and back, and penalties on gradients are differentiated through.

Source: Fan et al. 2025, arXiv 2502.05374. Differs from the released code, whose
gradient and curvature penalties have no derivative at all, and whose perturbations in
bfloat16 are mostly rounded away.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.types import Params

Aux: TypeAlias = Callable[[Any, Params], tuple[Any, Any]]
"""``(key, params) -> (scalar, what else comes out)``."""

SMOOTHINGS = (
    "none",
    "sharpness",
    "random",
    "gradient_penalty",
    "curvature_penalty",
)


def check_smoothing(name: str) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: names those that there are.
    """
    if name not in SMOOTHINGS:
        raise ValueError(
            f"smoothing {name!r} is unknown; choose from {', '.join(SMOOTHINGS)}"
        )


def smoothed(part: Aux, smoothing: str, size: float, samples: int = 3) -> Aux:
    """The same loss, smoothed.

    Args:
        part: A loss of the parameters.
        smoothing: "sharpness" (SAM): at θ + size · g/‖g‖, g = ∇ℓ(θ) of the same batch,
            the perturbation held fixed. "random": mean over Gaussian perturbations of
            standard deviation ``size`` per parameter. "gradient_penalty": ℓ + size ·
            ‖g‖, whose gradient has the term size · H g/‖g‖. "curvature_penalty":
            ℓ + size · ‖H v‖ with v = g/‖g‖ held fixed. "none": as it is.
        size: Radius [parameter], or weight of the penalty.
        samples: Perturbations of "random".

    Returns:
        ``(key, params) -> (scalar, rest)``; the rest is that of the first evaluation at
        the parameters, or at the last perturbed ones.

    Cost: in gradients 2, ``samples``, 2 and 4; one without.
    """

    def slope(key: Any, params: Params) -> Params:
        return jax.grad(lambda p: part(key, p)[0])(params)

    def direction(gradient: Params) -> Params:
        return tree.scale(1 / _length(gradient), gradient)

    def sharpness(key: Any, params: Params) -> tuple[Any, Any]:
        away = jax.lax.stop_gradient(direction(slope(key, params)))
        return part(key, tree.axpy(size, away, params))

    def random(key: Any, params: Params) -> tuple[Any, Any]:
        values, rest = [], None
        for own in jax.random.split(key, samples):
            noise = tree.random_like(own, params, jax.random.normal)
            value, rest = part(key, tree.axpy(size, noise, params))
            values.append(value)
        return sum(values[1:], values[0]) / samples, rest

    def gradient_penalty(key: Any, params: Params) -> tuple[Any, Any]:
        value, rest = part(key, params)
        return value + size * _length(slope(key, params)), rest

    def curvature_penalty(key: Any, params: Params) -> tuple[Any, Any]:
        value, rest = part(key, params)
        along = jax.lax.stop_gradient(direction(slope(key, params)))
        _, bent = jax.jvp(lambda p: slope(key, p), (params,), (along,))
        return value + size * _length(bent), rest

    return {
        "none": part,
        "sharpness": sharpness,
        "random": random,
        "gradient_penalty": gradient_penalty,
        "curvature_penalty": curvature_penalty,
    }[smoothing]


def _length(a: Params) -> Any:
    """‖a‖, positive and of slope zero where a is zero."""
    square = tree.dot(a, a)
    none = square == 0
    return jnp.sqrt(jnp.where(none, jnp.finfo(square.dtype).tiny, square))
