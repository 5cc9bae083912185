"""Fine-tunes, on the retain set, a sparse model that was trained beforehand."""

from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.rewinding import with_rewinding
from unlearn_jax.train.recipe import Learner


@entrance()
def prune_rewind(
    learner: Learner,
    *,
    pruning: str = "magnitude",
    sparsity: float = 0.95,
    axes: int = 2,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Prune, rewind and train before requests; fine-tune what is left at a request.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        pruning: "magnitude", "iterative" or "synflow", see ``with_rewinding``.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit).
        axes: Parameters of so many axes or more hold weights; 4 for those of
            convolutions alone, as released.
        epochs: Passes over the retain set.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    Batch statistics move.

    Returns:
        Method that reads a trace, whose first checkpoint it rewinds to.

    Raises:
        ValueError: as ``with_rewinding``.

    Cost: prepare, a training run or several, see ``with_rewinding``; forget, epochs ×
        retain examples gradients.
    Source: "prune first, then unlearn" of Jia et al. 2023, arXiv 2304.04934, by FT.
        Differs as ``with_rewinding`` does.
    """
    return with_rewinding(
        finetune,
        learner,
        pruning=pruning,
        sparsity=sparsity,
        axes=axes,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
