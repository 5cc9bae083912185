"""Prunes the smallest weights, then trains what is left on the retain set."""

from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.pruning import with_pruning
from unlearn_jax.train.recipe import Learner


@entrance()
def prune_finetune(
    learner: Learner,
    *,
    sparsity: float = 0.95,
    axes: int = 2,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Remove the smallest weights for good, then fine-tune the others.

    Args:
        learner: As for ``finetune``.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit).
        axes: Parameters of so many axes or more hold weights; 4 for those of
            convolutions alone, as released.
        epochs: Passes over the retain set.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    Batch statistics move.

    Raises:
        ValueError: ``sparsity`` is 1 or more; from ``forget``, when no parameter has
            so many axes.

    Cost: epochs × retain examples gradients.
    Source: "prune first, then unlearn" of Jia et al. 2023, arXiv 2304.04934, by OMP
        and FT. Differs as ``with_pruning`` does: fine-tuning has to repair the pruned
        model too.
    """
    return with_pruning(
        finetune,
        learner,
        sparsity=sparsity,
        axes=axes,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
