"""Two ways to learn what a set of features looks like: variational, and linear."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from unlearn_jax.generators.evidence import divergence
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Array, Params, PRNGKey, Variables
from unlearn_kernels.precision import EXACT

DIVERGENCE = 0.025
"""Weight of KL(code ‖ N(0, 1)) beside the squared error, as released with LAF."""


class Fit(Protocol):
    """``(key, features, weights, latent) -> params``."""

    def __call__(
        self, key: PRNGKey, features: Array, weights: Array, latent: int, /
    ) -> Params:
        """Learn from (n, f) features with weights (n,)."""
        ...


class Autoencoder(NamedTuple):
    """Description: how to learn and how to reconstruct.

    Attributes:
        fit: See :class:`Fit`.
        reconstruct: ``(params, (n, f)) -> (n, f)``.
    """

    fit: Fit
    reconstruct: Any


def fit_variational(
    key: PRNGKey, features: Array, weights: Array, latent: int
) -> Params:
    """A variational autoencoder of half, an eighth of the width, and ``latent`` codes.

    Ten passes of Adam at 1e-3 in batches of 32 on the squared error and
    ``DIVERGENCE`` · KL. Outputs are linear; released code of LAF puts a sigmoid on
    them, which cannot reach features beyond 0 and 1.
    """
    start_key, order_key = jax.random.split(key)
    width = features.shape[1]
    inner = [max(width // 2, latent), max(width // 8, latent)]
    sizes = [width, *inner, 2 * latent], [latent, *inner[::-1], width]
    keys = jax.random.split(start_key, 2)
    params = [
        _layers(k, own, features.dtype) for k, own in zip(keys, sizes, strict=True)
    ]
    recipe = Recipe(
        epochs=10,
        batch_size=32,
        learning_rate=1e-3,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
    )
    state = begin(Variables({"encoder": params[0], "decoder": params[1]}, {}), recipe)
    found = optimise(order_key, state, features, weights, _evidence, recipe)
    return found.variables.params


def reconstruct_variational(params: Params, features: Array) -> Array:
    """Decoded from the means of the codes."""
    means, _ = _codes(params, features)
    return _through(params["decoder"], means)


def fit_linear(key: PRNGKey, features: Array, weights: Array, latent: int) -> Params:
    """The linear autoencoder of least squared error: mean and leading directions."""
    del key
    mass = jnp.sum(weights)
    shares = (weights / jnp.where(mass > 0, mass, 1)).astype(features.dtype)
    mean = jnp.matmul(shares, features, precision=EXACT)
    apart = features - mean[None]
    scaled = apart * shares[:, None]
    covariance = jnp.matmul(scaled.T, apart, precision=EXACT)
    return {"mean": mean, "basis": jnp.linalg.eigh(covariance)[1][:, -latent:]}


def reconstruct_linear(params: Params, features: Array) -> Array:
    """Projected on the leading directions."""
    basis, mean = params["basis"], params["mean"][None]
    codes = jnp.matmul(features - mean, basis, precision=EXACT)
    return mean + jnp.matmul(codes, basis.T, precision=EXACT)


AUTOENCODERS: Mapping[str, Autoencoder] = {
    "variational": Autoencoder(fit_variational, reconstruct_variational),
    "linear": Autoencoder(fit_linear, reconstruct_linear),
}
"""Name -> how to learn and to reconstruct."""


def _evidence(key: Any, params: Any, stats: Any, features: Any, weights: Any) -> Any:
    means, logs = _codes(params, features)
    noise = jax.random.normal(key, means.shape, means.dtype)
    drawn = _through(params["decoder"], means + jnp.exp(0.5 * logs) * noise)
    errors = jnp.sum(jnp.square(drawn - features), axis=1)
    values = errors + DIVERGENCE * divergence(means, logs)
    return weighted_mean(values, weights), stats


def _codes(params: Params, features: Array) -> tuple[Array, Array]:
    means, logs = jnp.split(_through(params["encoder"], features), 2, axis=1)
    return means, logs


def _layers(key: PRNGKey, sizes: list[int], dtype: Any) -> list[Params]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {
            "kernel": jax.random.normal(k, (a, b), dtype) * (2 / a) ** 0.5,
            "bias": jnp.zeros(b, dtype),
        }
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def _through(layers: list[Params], values: Array) -> Array:
    for number, layer in enumerate(layers):
        values = jnp.matmul(values, layer["kernel"], precision=EXACT)
        values = values + layer["bias"][None]
        if number < len(layers) - 1:
            values = jax.nn.relu(values)
    return values
