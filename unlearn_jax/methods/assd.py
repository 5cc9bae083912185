"""Adaptive selective synaptic dampening: the threshold follows from the set sizes."""

import jax.numpy as jnp

from unlearn_jax.methods.dampening import dampen, importance, pooled_ratios
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.options import check_whole
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def assd(learner: Learner, *, importance_batch: int = 1024) -> Method:
    """Dampen a fixed share of all parameters, set by the share of forgotten examples.

    With p = ln(1 + 100 n_forget / n) percent, alpha is the (100 - p)-th percentile of
    F_forget / F_retain over all parameters together. The share is dampened whatever the
    evidence.

    Args:
        learner: Model and loss that the original was trained with.
        importance_batch: Examples averaged before a gradient is squared; at least 2.

    Batch statistics stay.

    Cost: one gradient per example of both sets, at the request; one sort of all
        parameters.
    Source: Schoepf et al. 2024, arXiv 2402.10098. Differs: evaluation mode throughout
        (the released notebook leaves batch-norm in training mode).
    """
    check_whole("assd: importance_batch", importance_batch, least=2)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        del key
        retained, forgotten = (
            importance(learner, variables, data, "batch", importance_batch)
            for data in (request.retain, request.forget)
        )
        gone = jnp.sum(request.forget.weights > 0)
        kept = jnp.sum(request.retain.weights > 0)
        share = jnp.log1p(100.0 * gone / (gone + kept))
        ratios = pooled_ratios(forgotten.value, retained.value)
        alpha = jnp.nanpercentile(ratios, 100.0 - share)
        params = dampen(
            variables.params, retained, forgotten, alpha=alpha, dampening=1.0
        )
        return variables._replace(params=params)

    return stateless(forget)
