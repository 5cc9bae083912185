"""Kernels ``(x, z) -> (n, m)``: linear, Gaussian, infinitely wide ReLU networks."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.types import Array
from unlearn_kernels.precision import exactly


@exactly
def linear(x: Any, z: Any, *, variance: Any = 1.0) -> Float[Array, "n m"]:
    """⟨x, z⟩ · variance: ridge regression with l2 = noise / variance."""
    return variance * (_flat(x) @ _flat(z).T)


@exactly
def rbf(
    x: Any, z: Any, *, length: Any = 1.0, variance: Any = 1.0
) -> Float[Array, "n m"]:
    """exp(−‖x − z‖² / (2 length²)) · variance."""
    x, z = _flat(x), _flat(z)
    own = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(z**2, axis=1)[None]
    distance = jnp.maximum(own - 2 * (x @ z.T), 0)
    return variance * jnp.exp(-distance / (2 * length**2))


@exactly
def relu_network(
    x: Any,
    z: Any,
    *,
    depth: int = 2,
    weight_std: Any = 2**0.5,
    bias_std: Any = 0.0,
    tangent: bool = False,
) -> Float[Array, "n m"]:
    """Kernel of a fully connected ReLU network of infinite width, in closed form.

    A layer of width m takes its input h of length f to weight_std / √f · W h +
    bias_std · b, W and b standard normal; ReLU follows all but the last. With Σ the
    kernel before an activation, ρ its cosine and θ = arccos ρ, each layer makes

        Σ ← weight_std² √(Σxx Σzz) (sin θ + (π − θ) ρ) / 2π + bias_std²
        Θ ← Σ + weight_std² Θ (π − θ) / 2π.

    Args:
        x: Inputs (n, ...), flattened.
        z: Inputs (m, ...).
        depth: Hidden layers; at 0 the network is linear.
        weight_std: Of the weights, times the root of the layer's input length.
        bias_std: Of the biases.
        tangent: Return Θ, the neural tangent kernel, instead of Σ, the covariance of
            the outputs at random initialisation. Where two inputs point the same way
            Θ has a kink; inputs within 1e-7 rad (float64) count as the same direction.

    Raises:
        ValueError: depth is negative.

    Cost: n m (f + a few operations for each layer).
    Source: Cho & Saul 2009, Kernel methods for deep learning; Jacot et al. 2018,
        arXiv 1806.07572. As published.
    """
    if depth < 0:
        raise ValueError(f"depth is {depth}, expected the number of hidden layers")
    x, z = _flat(x), _flat(z)
    weight, bias = weight_std**2, bias_std**2
    scale = weight / x.shape[1]
    own_x, own_z = (scale * jnp.sum(side**2, axis=1) + bias for side in (x, z))
    covariance = slopes = scale * (x @ z.T) + bias
    for _ in range(depth):
        there = (own_x > 0)[:, None] & (own_z > 0)[None]
        root_x, root_z = (jnp.sqrt(jnp.where(v > 0, v, 1)) for v in (own_x, own_z))
        root = root_x[:, None] * root_z[None]
        cosine = covariance / root
        edge = 1 - 16 * jnp.finfo(cosine.dtype).eps
        cosine = jnp.where(jnp.abs(cosine) > edge, jnp.sign(cosine), cosine)
        covariance = weight * jnp.where(there, root * _arc_one(cosine), 0) / 2 + bias
        slopes = covariance + weight * slopes * _arc_zero(cosine) / 2
        own_x, own_z = weight * own_x / 2 + bias, weight * own_z / 2 + bias
    return slopes if tangent else covariance


@jax.custom_jvp
def _arc_one(cosine: Array) -> Array:
    """2 E[relu(u) relu(v)] of standard normals with this correlation."""
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    return sine / jnp.pi + _arc_zero(cosine) * cosine


@_arc_one.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    # The derivatives of the two terms are infinite at ±1 and cancel.
    return _arc_one(*primals), _arc_zero(*primals) * tangents[0]


def _arc_zero(cosine: Array) -> Array:
    """2 P[u > 0, v > 0] = 1 − θ / π."""
    inside = jnp.abs(cosine) < 1
    return (
        1
        - jnp.where(
            inside, jnp.arccos(jnp.where(inside, cosine, 0)), jnp.pi * (cosine < 0)
        )
        / jnp.pi
    )


def _flat(inputs: Any) -> Array:
    inputs = jnp.asarray(inputs)
    return inputs.reshape(inputs.shape[0], -1)
