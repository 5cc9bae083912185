"""Selective synaptic dampening: shrink what matters most to the forget set."""

from unlearn_jax.methods.dampening import dampening_method
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.options import check_whole
from unlearn_jax.train.loss import target_kind
from unlearn_jax.train.recipe import Learner


@entrance()
def ssd(
    learner: Learner,
    *,
    alpha: float = 10.0,
    dampening: float = 1.0,
    importance_batch: int = 1,
) -> Method:
    """Dampen by the ratio of importances to the forget set and to all training data.

    Args:
        learner: Model and loss that the original was trained with.
        alpha: Selection threshold on the ratio of importances (no unit). Published for
            ``importance_batch=64``; the ratio depends on it.
        dampening: Strength of the shrinkage on the same ratio (no unit).
        importance_batch: Examples averaged before a gradient is squared: 1 for the
            diagonal of the empirical Fisher, 64 for the published code (class
            forgetting; 128 for random).

    The retain set is not read; batch statistics stay.

    Raises:
        ValueError: ``importance_batch`` below 1.

    Returns:
        Method; its state is the importance over the training set with its batch size.

    Cost: prepare, one gradient per training example; forget, one per forget example.
    Source: Foster et al. 2024, arXiv 2308.07707. Differs by default: per-example
        squares; their code squares gradients of batch means.
    """
    kind = "example" if importance_batch == 1 else "batch"
    return dampening_method(
        learner, kind, importance_batch, alpha=alpha, dampening=dampening
    )


@entrance()
def ssd_batch(
    learner: Learner,
    *,
    alpha: float = 10.0,
    dampening: float = 1.0,
    importance_batch: int = 64,
    by_class: bool = False,
) -> Method:
    """:func:`ssd` with the importance of the published code, squares of batch means.

    Args:
        learner: Model and loss that the original was trained with.
        alpha: Selection threshold on the ratio of importances (no unit).
        dampening: Strength of the shrinkage on the same ratio (no unit).
        importance_batch: Examples averaged before a gradient is squared; at least 2
            (``ssd`` takes per-example squares).
        by_class: Batches of one class after another, as the released loader of class
            requests gives them; else in the order of the data, so that classes mix and
            importances are smaller.

    Raises:
        ValueError: ``importance_batch`` below 2, or ``by_class`` without classes.

    Source: as :func:`ssd`. As released with ``by_class``; there the forgotten class
        comes last, which is not known before the request.
    """
    check_whole("ssd_batch: importance_batch", importance_batch, least=2)
    if by_class and target_kind(learner.loss) not in ("classes", "anything"):
        raise ValueError(
            "ssd_batch: by_class sorts by class, and this learner's targets are "
            f"{target_kind(learner.loss)}: leave it out"
        )
    kind = "class_batch" if by_class else "batch"
    return dampening_method(
        learner, kind, importance_batch, alpha=alpha, dampening=dampening
    )
