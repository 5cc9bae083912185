"""WAGLE: only weights whose attribution to the forget loss is large may move."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods.gradient import risk_gradient
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.masked import Mask, under_mask
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.npo import npo
from unlearn_jax.methods.saliency import check_fraction, saliency_mask
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Params, PRNGKey, Variables


def attribution(
    params: Params, forgotten: Params, retained: Params, curvature: float
) -> Params:
    """|(θ - g_retain / curvature) · g_forget|, per parameter.

    Args:
        params: θ.
        forgotten: ∇ of the mean forget loss.
        retained: ∇ of the mean retain loss.
        curvature: γ of a retain Hessian γ I.
    """
    return jax.tree.map(
        lambda p, f, r: jnp.abs((p - r / curvature) * f), params, forgotten, retained
    )


def with_attribution(
    factory: Callable[..., Method],
    learner: Learner,
    *,
    fraction: float = 0.8,
    curvature: float = 1e-6,
    mask_batch: int = 256,
    **options: Any,
) -> Method:
    """Any method, moving only the weights of the largest attribution.

    Args:
        factory: Builds the method from a learner.
        learner: Model, loss and recipe.
        fraction: Share of all parameters that may move (no unit).
        curvature: γ, in the unit of a mean loss / parameter². At the released 1e-6 the
            first term is lost and the score is |g_retain · g_forget|.
        mask_batch: Examples held at once for the gradients (memory only).
        **options: Of the method.

    Raises:
        ValueError: ``fraction`` outside [0, 1], ``curvature`` not positive, or a method
            that reads a trace.

    Cost: the method's, and one gradient per example of both sets.
    Source: Jia et al. 2024, arXiv 2410.17509. Differs: gradients of mean losses, where
        released code adds up batches (its γ is in that unit); what is masked does not
        move at all, where weight decay leaks there.
    """
    check_fraction(fraction)
    if not curvature > 0:
        raise ValueError(f"curvature must be positive, got {curvature}: raise it")

    def choose(
        key: PRNGKey, variables: Variables, request: Request
    ) -> tuple[Params, Mask]:
        del key
        objective = bind(learner.model, variables.stats, learner.loss)
        forgotten, retained = (
            risk_gradient(objective, variables.params, part, batch_size=mask_batch)
            for part in request
        )
        score = attribution(variables.params, forgotten, retained, curvature)
        return variables.params, saliency_mask(score, fraction)

    return under_mask(factory, learner, choose, **options)


@entrance()
def wagle(
    learner: Learner,
    *,
    fraction: float = 0.8,
    curvature: float = 1e-6,
    beta: float = 0.1,
    reduction: str = "sum",
    retain: str = "loss",
    retain_weight: float = 1.0,
    epochs: int = 10,
    learning_rate: float = 1e-5,
    batch_size: int = 32,
) -> Method:
    """:func:`unlearn_jax.methods.npo.npo` under the mask of :func:`with_attribution`.

    Args:
        learner: As there.
        fraction: Share of the parameters that may move.
        curvature: As there.
        beta: As in ``npo``.
        reduction: As in ``npo``.
        retain: As in ``npo``.
        retain_weight: As in ``npo``.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Forgotten, and retained, examples per step.

    Batch statistics move.
    """
    return with_attribution(
        npo,
        learner,
        fraction=fraction,
        curvature=curvature,
        beta=beta,
        reduction=reduction,
        retain=retain,
        retain_weight=retain_weight,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
