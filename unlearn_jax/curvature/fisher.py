"""Fisher matrices: under the model's labels, under drawn labels, under those given.

All three are Jᵀ C J with a small matrix C per example, made of gradients with respect
to the outputs; no per-example gradient of the parameters is ever formed. ``l2`` is left
out: it is a prior, not a label.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.jacobian import jacobian_product
from unlearn_jax.curvature.label_slopes import (
    are_labels,
    described,
    label_counts,
    token_shares,
)
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import mass
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered, seen
from unlearn_jax.train.loss import SEQUENCE_LOSSES, cross_entropy, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Outputs, Params, PRNGKey, Targets


@automatic
def empirical_fisher(
    objective: Objective, params: Params, batch: Batch
) -> LinearOperator:
    """Σₙ wₙ gₙ gₙᵀ / Σₙ wₙ, gₙ the gradient of example n's loss at its own label.

    Args:
        objective: Any loss; ``l2`` is left out.
        params: Where the gradients are taken.
        batch: Examples with weights, negative ones too.

    Returns:
        Operator on trees like ``params``; positive semi-definite where no weight is
        negative.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: that of a Gauss-Newton product, whatever the number of examples.
    Source: Kunstner et al. 2019, arXiv 1905.12558, eq. 3. As published.
    """
    params, batch = entered("empirical_fisher", objective, params, batch)
    batch = seen(objective, params, batch)

    def middle(outputs: Outputs) -> Callable[[Any], Any]:
        return _outer(_output_slopes(objective, outputs, batch.targets)[None])

    return _sandwich(objective, params, batch, middle)


@automatic
def fisher(objective: Objective, params: Params, batch: Batch) -> LinearOperator:
    """Σₙ wₙ E_y[gₙ(y) gₙ(y)ᵀ] / Σₙ wₙ, labels y from the model's own distribution.

    Equal to ``gauss_newton`` without ``l2`` for ``cross_entropy``, ``squared_error``
    (Gaussian outputs of unit variance), ``sequence_nll_sum`` and ``sequence_nll``. The
    last is a mean over the T tokens of an example, not a sum: its Fisher matrix is
    E[g gᵀ] of the sum over T, so T times E[g gᵀ] of the mean.

    Args:
        objective: With ``cross_entropy``, ``squared_error``, a loss of sequences, or
            any other loss of logits (n, k) and class indices (n,), whose expectation is
            taken class by class with the probabilities softmax(outputs).
        params: Where the gradients are taken.
        batch: Examples with weights; of the targets only which tokens are ignored is
            read.

    Returns:
        Operator on trees like ``params``; positive semi-definite.

    Raises:
        ValueError: the loss has no such distribution of labels.

    Cost: that of a Gauss-Newton product; for an unknown classification loss k vectors
        of size k per example are kept as well.
    Source: Martens 2020, arXiv 1412.1193. As published.
    """
    params, batch = entered("fisher", objective, params, batch)
    batch = seen(objective, params, batch)

    def middle(outputs: Outputs) -> Callable[[Any], Any]:
        if objective.loss is squared_error:
            return lambda u: u
        if objective.loss in (cross_entropy, *SEQUENCE_LOSSES):
            scale = jnp.ones((), outputs.dtype)
            if objective.loss in SEQUENCE_LOSSES:
                shares = token_shares(objective.loss, batch.targets, outputs.dtype)
                scale = shares[..., None]
            p = jax.nn.softmax(outputs, axis=-1)
            return lambda u: scale * p * (u - jnp.sum(p * u, axis=-1, keepdims=True))
        _check_classification(objective, outputs, batch.targets, "fisher")
        n, k = outputs.shape
        slopes = jax.vmap(
            lambda c: _output_slopes(objective, outputs, jnp.full((n,), c, jnp.int32))
        )(jnp.arange(k))
        root = jnp.sqrt(jax.nn.softmax(outputs, axis=-1)).T[..., None]
        return _outer(root * slopes)

    return _sandwich(objective, params, batch, middle)


@automatic
def sampled_fisher(
    key: PRNGKey, objective: Objective, params: Params, batch: Batch, *, samples: int
) -> LinearOperator:
    """An unbiased estimate of ``fisher`` from labels drawn once, when it is built.

    Labels are drawn from softmax(outputs), token by token for sequences, or from a
    Gaussian of unit variance about the outputs for ``squared_error``. Ignored tokens
    stay ignored. Under ``over_batches`` the same key serves every batch: still
    unbiased, but the draws of two batches are not independent.

    Args:
        key: Random key.
        objective: ``squared_error``, or a loss of logits and integer targets.
        params: Where the gradients are taken.
        batch: Examples with weights.
        samples: Labels per example.

    Returns:
        Operator on trees like ``params``; the same matrix in every product.

    Raises:
        ValueError: no samples, or the loss has no such distribution of labels.

    Cost: that of a Gauss-Newton product whatever the number of samples; memory samples
        · outputs.
    Source: Martens & Grosse 2015, arXiv 1503.05671. As published.
    """
    if samples < 1:
        raise ValueError(f"sampled_fisher got samples={samples}, expected at least 1")
    params, batch = entered("sampled_fisher", objective, params, batch)
    batch = seen(objective, params, batch)

    def middle(outputs: Outputs) -> Callable[[Any], Any]:
        targets = batch.targets
        gaussian = objective.loss is squared_error
        if not gaussian:
            _check_labels(objective, outputs, targets, "sampled_fisher")

        def slopes(own: Any) -> Array:
            if gaussian:
                drawn = outputs + jax.random.normal(own, outputs.shape, outputs.dtype)
            else:
                drawn = jax.random.categorical(own, outputs, axis=-1)
                drawn = jnp.where(targets < 0, targets, drawn.astype(targets.dtype))
            return _output_slopes(objective, outputs, drawn)

        drawn = jax.vmap(slopes)(jax.random.split(key, samples))
        counts = label_counts(objective, outputs, targets)
        shares = jnp.sqrt(counts / samples).astype(outputs.dtype)
        return _outer(drawn * shares.reshape(1, -1, *(1,) * (outputs.ndim - 1)))

    return _sandwich(objective, params, batch, middle)


def _sandwich(
    objective: Objective,
    params: Params,
    batch: Batch,
    middle: Callable[[Outputs], Callable[[Any], Any]],
) -> LinearOperator:
    """Σₙ wₙ Jₙᵀ Cₙ Jₙ / Σₙ wₙ, where ``middle(outputs)`` applies the matrices Cₙ."""
    outputs, jvp, vjp = jacobian_product(objective, params, batch.inputs)
    apply = middle(outputs)
    shares = (batch.weights / mass(batch.weights)).astype(outputs.dtype)
    shares = shares.reshape(-1, *(1,) * (outputs.ndim - 1))
    return linear_operator(lambda v: vjp(shares * apply(jvp(v))), params)


def _outer(slopes: Array) -> Callable[[Any], Any]:
    """U ↦ Σₛ sₙ ⟨sₙ, uₙ⟩ for each example n; ``slopes`` is (s, n, …)."""
    axes = tuple(range(2, slopes.ndim))

    def apply(u: Array) -> Array:
        products = jnp.real(jnp.conj(slopes) * u[None])
        along = jnp.sum(products, axis=axes, keepdims=True)
        return jnp.sum(along * slopes, axis=0)

    return apply


def _output_slopes(objective: Objective, outputs: Outputs, targets: Targets) -> Array:
    """∂ℓₙ/∂outputsₙ for all examples: each loss depends on its own outputs only."""
    slopes = jax.grad(lambda o: jnp.sum(objective.loss(o, targets)))(outputs)
    return jnp.conj(slopes)  # JAX's gradient of complex numbers points the other way


def _check_labels(
    objective: Objective, outputs: Outputs, targets: Any, name: str
) -> None:
    if not are_labels(targets, outputs):
        raise ValueError(
            f"{name} got targets {described(targets)} for outputs "
            f"{list(outputs.shape)} under the loss {_name(objective.loss)}, expected "
            f"class indices or squared_error, whose label distribution is known; use "
            f"gauss_newton or empirical_fisher"
        )


def _check_classification(
    objective: Objective, outputs: Outputs, targets: Any, name: str
) -> None:
    _check_labels(objective, outputs, targets, name)
    if outputs.ndim != 2:
        raise ValueError(
            f"{name} got outputs {list(outputs.shape)} under the loss "
            f"{_name(objective.loss)}, expected (n, k); use sampled_fisher for "
            f"sequences with a loss of your own"
        )


def _name(loss: Any) -> str:
    return getattr(loss, "__name__", repr(loss))
