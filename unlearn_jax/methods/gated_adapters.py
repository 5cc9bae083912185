"""Adapters for one request after another, and a gate that opens for what was forgotten.

The parts of O3: what keeps the adapters of several requests apart, how familiar a text
is with a request, and how far its adapter is switched on. The gate decides at inference
and the base stays what it was, so that this is a guard: report it as one.

Source: Gao et al. 2025, arXiv 2407.10223. Differs: familiarity is read at one layer of
the model at hand, where the paper trains an encoder and joins twelve layers by a
one-class SVM; the gate is the soft one of the paper, which the released evaluation
replaces by cut-offs set by hand; adapters of earlier requests stand beside the new one,
where the release goes on from the last one and holds it apart from its own beginning.

Cost: of k earlier requests with rank r on kernels of i rows, the overlap is k i r²
products a kernel and step; what a request's n texts look like is one d × d inverse, and
familiarity of a text n d + d² products.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, Params, Scalar, Variables
from unlearn_kernels.precision import EXACT

STEEPNESS, OFFSET = 10.0, 2.0


def overlap(adapters: Params, others: Sequence[Params]) -> Scalar:
    """Σ over kernels and earlier requests of ‖downᵢᵀ down‖²: 0 where they are apart.

    The penalty of a new request's training, 0.1 of its mean over layers in the paper;
    0 for the first request, which has nobody to be apart from.

    Args:
        adapters: Parameters of ``models.lora``, of the new request.
        others: Of earlier ones, held fixed.

    Raises:
        ValueError: adapters on other kernels.
    """
    total = jnp.zeros(())
    for other in others:
        if set(other) != set(adapters):
            raise ValueError(
                f"adapters are on {sorted(set(adapters) ^ set(other))[0]!r} of one "
                "request and not of another, expected the same kernels: choose them "
                "by the same rule"
            )
        for name, own in adapters.items():
            before = jax.lax.stop_gradient(other[name]["down"])
            product = jnp.einsum(
                "...ir,...is->...rs", before, own["down"], precision=EXACT
            )
            total = total + jnp.sum(jnp.square(product))
    return total


class Familiar(NamedTuple):
    """Value: features of a request's texts, as a Gaussian and as directions."""

    mean: Float[Array, " d"]
    precision: Float[Array, "d d"]
    directions: Float[Array, "n d"]


def familiar(features: Float[Array, "n d"], *, damping: float = 1e-3) -> Familiar:
    """What texts of a request look like.

    Args:
        features: One row for each text, such as the mean of ``Model.features`` over its
            tokens.
        damping: Added to the covariance, over its mean eigenvalue: there are fewer
            texts than dimensions.

    Raises:
        ValueError: no text, or a damping that is not positive.
    """
    check_whole("familiar: texts of the request", len(features))
    check_number("familiar: damping", damping, positive=True)
    mean = features.mean(0)
    apart = features - mean[None]
    spread = jnp.matmul(apart.T, apart, precision=EXACT) / len(features)
    level = damping * jnp.trace(spread) / len(spread)
    level = jnp.where(level > 0, level, 1)
    precision = jnp.linalg.inv(
        spread + level * jnp.eye(len(spread), dtype=spread.dtype)
    )
    return Familiar(mean, precision, _unit(features))


def familiarity(
    known: Familiar, features: Float[Array, "m d"], *, cosine_weight: float = 1000.0
) -> Float[Array, " m"]:
    """-½ Mahalanobis distance + weight · largest cosine to a known text.

    High for what looks like the request: both terms grow with likeness. Differs: in the
    released code the second one is subtracted.
    """
    apart = features - known.mean[None]
    distance = jnp.einsum("mi,ij,mj->m", apart, known.precision, apart, precision=EXACT)
    cosine = jnp.matmul(_unit(features), known.directions.T, precision=EXACT)
    return -0.5 * distance + cosine_weight * cosine.max(1)


class Gate(NamedTuple):
    """Value: scores of two halves of a request's texts, a Gaussian each."""

    means: Float[Array, " 2"]
    deviation: Scalar


def fit_gate(seen: Float[Array, " n"], held: Float[Array, " m"]) -> Gate:
    """From the familiarity of texts that ``familiar`` saw, and of held-out ones.

    Both deviations are the held-out one's: of what was seen, familiarity is too sure.

    Raises:
        ValueError: no text that was seen, or fewer than two held out.
    """
    check_whole("fit_gate: texts that were seen", len(seen))
    check_whole("fit_gate: held-out texts", len(held), least=2)
    return Gate(jnp.stack([seen.mean(), held.mean()]), held.std())


def opened(gate: Gate, scores: Float[Array, " k"]) -> Float[Array, " k"]:
    """How far the adapter is switched on: sigmoid(10 c - 2), 0.12 to 0.9997.

    c = 1 - |Φ(s) - Φ(2 s₀ - s)|, Φ of the equal mixture of both Gaussians and s₀
    between their means: 1 in the middle of the request's scores and 0 far from them.
    """
    middle = gate.means.mean()
    width = jnp.where(gate.deviation > 0, gate.deviation, 1)

    def mixture(at: Array) -> Array:
        standard = (at[:, None] - gate.means[None]) / width
        return jax.scipy.stats.norm.cdf(standard).mean(1)

    near = 1 - jnp.abs(mixture(scores) - mixture(2 * middle - scores))
    return jax.nn.sigmoid(STEEPNESS * near - OFFSET)


def switched(variables: Variables, share: Any) -> Variables:
    """Variables of ``models.lora`` with so much of what its adapters add.

    Args:
        variables: Adapters and their base.
        share: From 0, the base alone, to 1; of several requests the largest.
    """
    params = {
        name: {**own, "up": share * own["up"]} for name, own in variables.params.items()
    }
    return variables._replace(params=params)


def _unit(rows: Array) -> Array:
    lengths = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(lengths > 0, lengths, 1)
