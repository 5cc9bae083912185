"""Label-free selective synaptic dampening: importances without labels."""

from unlearn_jax.methods.dampening import dampening_method
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.train.recipe import Learner


@entrance()
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
    return dampening_method(
        learner, "label_free", importance_batch, alpha=alpha, dampening=dampening
    )
