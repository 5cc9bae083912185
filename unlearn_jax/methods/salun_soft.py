"""Saliency without a mask: random labels, and a pull that holds most parameters."""

from typing import Any

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method
from unlearn_jax.methods.random_labels import alternating
from unlearn_jax.methods.saliency import check_fraction
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Params


@entrance()
def salun_soft(
    learner: Learner,
    *,
    fraction: float = 0.5,
    epochs: int = 10,
    learning_rate: float = 0.013,
    batch_size: int = 256,
) -> Method:
    """Alternate random and true labels; after a step part of the change is taken back.

    After every step all parameters move towards the original, by as much as it takes
    for a share of them to rest there: the proximal step of an l1 penalty on the change.
    The share is ``fraction`` in the first pair of passes and falls linearly, to
    fraction / epochs in the last.

    Args:
        learner: As for ``random_labels``.
        fraction: Share of the parameters that rest at the original at first (no unit);
            where ``salun`` says which may move.
        epochs: Pairs of passes.
        learning_rate: Constant step size; published for CIFAR-10.
        batch_size: Examples per step.

    Batch statistics move.

    Raises:
        ValueError: ``fraction`` is outside [0, 1].

    Cost: epochs × all examples gradients, and a sort of the parameters for each step.
    Source: SalUn-soft of Fan et al. 2024, arXiv 2310.12508, as its code does. As
        released for SVHN, one set after the other; for CIFAR-10 the two are mixed
        there, with random labels that last a pass.
    """
    check_fraction(fraction)

    def home(original: Params, index: Any) -> Any:
        left = fraction * (1 - index / epochs)
        count = jnp.floor(left * tree.size(original)).astype(jnp.int32)
        return original, count

    return alternating(
        learner,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        home=home,
    )
