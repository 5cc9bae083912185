"""Label-free selective synaptic dampening: importances without labels."""

from unlearn_jax.methods.dampening import (
    Importance,
    check_importance_batch,
    dampen,
    importance,
)
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


def lfssd(
    learner: Learner,
    *,
    alpha: float = 3.0,
    dampening: float = 1.0,
    importance_batch: int = 64,
) -> Method:
    """Dampen by absolute gradients of the squared norm of the outputs.

    Args:
        learner: Only its model is used; no label is read.
        alpha: Selection threshold on the ratio of importances (no unit). These scale
            like a gradient, those of ``ssd`` like its square, so thresholds do not
            carry over; about the square root of ``ssd``'s is a start.
        dampening: Strength of the shrinkage on the same ratio (no unit).
        importance_batch: Examples averaged before the absolute value is taken.

    The retain set is not read; batch statistics stay.

    Cost: as ``ssd``.
    Source: Foster et al. 2024, arXiv 2402.19308. As published but for ``alpha``.
    """
    check_importance_batch("lfssd", importance_batch, 1)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Importance:
        del key
        return importance(learner, original, train, "label_free", importance_batch)

    def forget(
        key: PRNGKey, state: Importance, variables: Variables, request: Request
    ) -> tuple[Variables, Importance]:
        del key
        forgotten = importance(
            learner, variables, request.forget, "label_free", importance_batch
        )
        params = dampen(
            variables.params, state, forgotten, alpha=alpha, dampening=dampening
        )
        return variables._replace(params=params), state

    return Method(prepare, forget)
