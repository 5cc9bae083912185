"""Saliency unlearning: random labels, on the salient weights alone."""

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.random_labels import random_labels
from unlearn_jax.methods.saliency import with_saliency
from unlearn_jax.train.recipe import Learner


@entrance()
def salun(
    learner: Learner,
    *,
    fraction: float = 0.5,
    saliency: str = "gradient",
    leaky: bool = False,
    epochs: int = 10,
    learning_rate: float = 0.013,
    batch_size: int = 256,
) -> Method:
    """Alternate random and true labels, moving only what matters to the forget set.

    Args:
        learner: As for ``random_labels``.
        fraction: Share of the parameters that may move (no unit).
        saliency: Which: "gradient", "second_order" or "random", see ``with_saliency``.
        leaky: Let weight decay and l2 move the others still, as the published numbers
            were very likely made.
        epochs: Pairs of passes.
        learning_rate: Constant step size; published for CIFAR-10.
        batch_size: Examples per step.

    Batch statistics move.

    Raises:
        ValueError: ``fraction`` is outside [0, 1], or an unknown ``saliency``.

    Cost: epochs × all examples gradients, and one per forget example.
    Source: Fan et al. 2024, arXiv 2310.12508. As published, in the sequential order
        that their code uses for CIFAR-10; the mask is strict unless ``leaky``.
    """
    return with_saliency(
        random_labels,
        learner,
        fraction=fraction,
        saliency=saliency,
        leaky=leaky,
        saliency_batch=batch_size,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
