"""Removal by unrolled response, ascent to a goal, short descent, and ascent again."""

from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, chain
from unlearn_jax.methods.natural_ascent import natural_ascent
from unlearn_jax.methods.source_removal import source_removal
from unlearn_jax.train.recipe import Learner


@entrance()
def unrolled_removal(
    learner: Learner,
    *,
    scale: float = 1.0,
    nats: float = 5.0,
    steps: int = 50,
    polish: float = 0.15,
    polish_rate: float = 0.5,
    batch_size: int = 256,
) -> Method:
    """The response of training, natural ascent, a short descent, natural ascent.

    A chain of :func:`~unlearn_jax.methods.source_removal.source_removal`, which knows
    where each forgotten example pulled and how far all in all;
    :func:`~unlearn_jax.methods.natural_ascent.natural_ascent`, which goes on until the
    forget set is as unknown as what was never seen, since a response of first order is
    too short where the net fits by heart;
    :func:`~unlearn_jax.methods.finetune.finetune`, which repairs on the retain set what
    both have bent; and the ascent once more, for what the descent has won back.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        scale: Of the response (no unit); 1 is the prediction. A longer one, which would
            make up for what the descent wins back, leaves random sets too far gone: on
            digits (five originals, seven random tenths) the mean gap of forget accuracy
            is -0.44 points with 1.25 and +0.10 with 1 (docs/second-order.md).
        nats: Radius of a step of the ascent, in nats over all training examples.
        steps: Of the ascent, at most.
        polish: Passes of the descent, as a share of those of training, to the nearest
            whole one; below one pass, over so large a random part of the retain set.
            What the price of a request mostly is.
        polish_rate: Peak of its learning rate, falling to zero as a cosine, as a share
            of the peak in training.
        batch_size: Examples whose activations are held at once, except in the descent.

    Batch statistics move in the descent.

    Returns:
        Method that reads a trace; its state is the tuple of its parts' states.

    Raises:
        ValueError: a share that is not positive, or a recipe of "adam".

    Cost: that of its parts: polish · training, and per forget example one gradient for
        each checkpoint and each step.
    Source: no single one; see its parts.
    """
    if not (polish > 0 and polish_rate > 0):
        raise ValueError(
            f"polish and polish_rate must be positive, got {polish} and {polish_rate}"
        )
    recipe = learner.recipe
    passes = polish * recipe.epochs
    ascent = natural_ascent(learner, nats=nats, steps=steps, batch_size=batch_size)
    return chain(
        source_removal(learner, scale=scale, batch_size=batch_size),
        ascent,
        finetune(
            learner,
            epochs=max(1, round(passes)),
            learning_rate=polish_rate * recipe.learning_rate,
            batch_size=recipe.batch_size,
            schedule="cosine",
            share=min(1.0, passes),
        ),
        ascent,
    )
