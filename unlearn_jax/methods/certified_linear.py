"""The mathematics of certified removal for regularised logistic regression.

Column c of the model minimises, over rows xᵢ with labels yᵢ = ±1 and weights wᵢ,
    L(θ) = Σᵢ wᵢ log(1 + exp(−yᵢ θ·xᵢ)) + (l2 m / 2) ‖θ‖² + b·θ,   m = Σᵢ wᵢ,
with b drawn once. What is certified is that ‖∇L‖ on the rows that are left is small
against the spread of b. Batches here hold features (n, f), labels (n, k) in {−1, 1}.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from unlearn_jax.data.accumulate import present
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar
from unlearn_kernels.precision import exactly

CURVATURE_CHANGE = 0.25
"""A bound on the third derivative of the logistic loss; the least is 1 / (6 √3)."""


class CertifiedModel(NamedTuple):
    """Value: one logistic model per column, and what is known about its residual.

    Attributes:
        weight: θ.
        noise: b, part of the training objective; secret.
        gram: Σ w x xᵀ over the rows that are left.
        scale: Trace of ``gram`` at training: what its rounding is measured by.
        bound: Accumulated bound on ‖∇L‖, per column.
        removals: Requests served since training.
    """

    weight: Float[Array, "f k"]
    noise: Float[Array, "f k"]
    gram: Float[Array, "f f"]
    scale: Scalar
    bound: Float[Array, " k"]
    removals: Int[Array, ""]


def residual_budget(sigma: float, epsilon: float, delta: float) -> float:
    """The residual σ ε / √(2 ln(1.5 / δ)) up to which (ε, δ) holds.

    Raises:
        ValueError: ``sigma`` or ``epsilon`` not positive, ``delta`` outside (0, 1).
    """
    if not (sigma > 0 and epsilon > 0 and 0 < delta < 1):
        raise ValueError(
            f"expected positive sigma and epsilon and delta between 0 and 1, got "
            f"{sigma}, {epsilon} and {delta}"
        )
    return float(sigma * epsilon / jnp.sqrt(2.0 * jnp.log(1.5 / delta)))


def residual_bound(model: CertifiedModel) -> Scalar:
    """Bound on ‖∇L‖ over all columns together, which is what the budget limits."""
    return jnp.sqrt(jnp.sum(jnp.square(model.bound)))


@exactly
def loss_gradient(
    weight: Float[Array, "f k"], noise: Float[Array, "f k"], data: Batch, l2: float
) -> Float[Array, "f k"]:
    """∇L, one column per model."""
    x, y, w = map(jnp.asarray, present(data))
    pull = -y * jax.nn.sigmoid(-y * (x @ weight)) * w[:, None]
    return x.T @ pull + l2 * jnp.sum(w) * weight + noise


@exactly
def certified_fit(
    key: PRNGKey, data: Batch, *, l2: float, sigma: float, steps: int = 30
) -> CertifiedModel:
    """Train with fresh noise b ~ N(0, sigma² I); the bound starts at the residual left.

    Args:
        key: Draws b.
        data: Features (n, f), labels (n, k) in {−1, 1}, weights.
        l2: Coefficient λ of m/2 ‖θ‖².
        sigma: Standard deviation of b.
        steps: Newton steps, each of the best of eight lengths 1, ½, ¼, …

    Cost: per step n f² k and f³ k.
    """
    x, labels, w = map(jnp.asarray, present(data))
    data = Batch(x, labels, w)
    mass = jnp.sum(w)
    noise = sigma * jax.random.normal(key, (x.shape[1], labels.shape[1]), x.dtype)
    lengths = 0.5 ** jnp.arange(8, dtype=x.dtype)

    # Newton's direction lowers the norm of the gradient, which unlike the loss can be
    # told apart down to rounding.
    def step(theta: Array, y: Array, b: Array) -> Array:
        def slopes(thetas: Array) -> Array:
            pull = -y[:, None] * jax.nn.sigmoid(-y[:, None] * (x @ thetas))
            return x.T @ (w[:, None] * pull) + l2 * mass * thetas + b[:, None]

        move = jnp.linalg.solve(_hessian(theta, data, l2), slopes(theta[:, None])[:, 0])
        tried = theta[:, None] - move[:, None] * lengths[None]
        return tried[:, jnp.argmin(jnp.linalg.norm(slopes(tried), axis=0))]

    columns = jax.vmap(step, (1, 1, 1), 1)
    weight = jax.lax.fori_loop(
        0, steps, lambda _, t: columns(t, labels, noise), jnp.zeros_like(noise)
    )
    residual = loss_gradient(weight, noise, data, l2)
    gram = x.T @ (w[:, None] * x)
    zero = jnp.zeros((), jnp.int32)
    bound = jnp.linalg.norm(residual, axis=0) + _rounding(weight, noise, data, l2)
    return CertifiedModel(weight, noise, gram, jnp.trace(gram), bound, zero)


@exactly
def certified_remove(
    model: CertifiedModel, kept: Batch, removed: Batch, *, l2: float
) -> CertifiedModel:
    """One Newton step for the rows that go; the bound on the residual grows.

    With Δ = Σ_removed w (∇ℓ + λ θ), H the Hessian of L on the kept rows, s = H⁻¹ Δ:
        θ ← θ + s,   bound ← bound + γ R ‖X‖₂ ‖s‖ ‖X s‖ + ‖H s − Δ‖ + rounding,
    X the kept rows, R the largest of their norms or 1, ‖X‖₂ bounded from above by the
    largest eigenvalue of the Gram matrix, which loses every removed row once.

    Args:
        model: Certified for the kept and the removed rows together.
        kept: What is left; the same array may hold removed rows at weight zero.
        removed: What goes.
        l2: As in training.

    Returns:
        The model without the removed rows. Whether it may be released is decided by
        ``residual_bound`` against the budget.

    Cost: n f² k and f³ k; nothing is trained.
    Source: Guo et al. 2020, arXiv 1911.03030, theorem 1 and corollary 1. Differs: an
        upper bound on ‖X‖₂ instead of power iterations, which stop below it; the
        solver's own residual is added; rows longer than 1 are allowed for; columns
        share one Gram matrix and are bounded together.
    """
    kept, removed = present(kept), present(removed)
    x, w = kept.inputs, kept.weights
    delta = loss_gradient(model.weight, jnp.zeros_like(model.noise), removed, l2)
    gram = model.gram - removed.inputs.T @ (removed.weights[:, None] * removed.inputs)
    removals = model.removals + 1
    f = x.shape[1]
    rounding = 8.0 * f * float(jnp.finfo(x.dtype).eps) * model.scale * (removals + 1)
    largest = jnp.linalg.eigvalsh((gram + gram.T) / 2)[-1] + rounding.astype(x.dtype)
    spread = jnp.sqrt(jnp.maximum(largest, 0))
    rows = jnp.where(w > 0, jnp.linalg.norm(x, axis=1), 0)
    radius = jnp.maximum(jnp.max(rows), 1)

    def column(theta: Array, change: Array) -> tuple[Array, Array]:
        matrix = _hessian(theta, kept, l2)
        step = jnp.linalg.solve(matrix, change)
        seen = jnp.linalg.norm(jnp.sqrt(w) * (x @ step))
        grown = CURVATURE_CHANGE * radius * spread * jnp.linalg.norm(step) * seen
        return theta + step, grown + jnp.linalg.norm(matrix @ step - change)

    weight, grown = jax.vmap(column, (1, 1), (1, 0))(model.weight, delta)
    grown = grown + _rounding(weight, model.noise, kept, l2)
    return model._replace(
        weight=weight, gram=gram, bound=model.bound + grown, removals=removals
    )


def _rounding(weight: Array, noise: Array, data: Batch, l2: float) -> Array:
    """How far rounding may carry ∇L from what it should be, per column."""
    rows = jnp.sum(data.weights * jnp.linalg.norm(data.inputs, axis=1))
    ridge = l2 * jnp.sum(data.weights) * jnp.linalg.norm(weight, axis=0)
    size = rows + ridge + jnp.linalg.norm(noise, axis=0)
    return 8.0 * float(jnp.finfo(weight.dtype).eps) * size


def _hessian(theta: Array, data: Any, l2: float) -> Array:
    chance = jax.nn.sigmoid(data.inputs @ theta)
    bend = data.weights * chance * (1 - chance)
    ridge = l2 * jnp.sum(data.weights) * jnp.eye(theta.size, dtype=theta.dtype)
    return data.inputs.T @ (bend[:, None] * data.inputs) + ridge
