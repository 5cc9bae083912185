"""Removal by unrolled response, ascent to a goal, taught descent, and ascent again."""

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.trace import Trace
from unlearn_jax.attribution.unseen import unretained
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.lesson import with_lesson
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.natural_ascent import Ascent, natural_ascent
from unlearn_jax.methods.source_removal import source_removal
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


@entrance()
def unrolled_removal(
    learner: Learner,
    *,
    scale: float = 1.0,
    nats: float = 5.0,
    steps: int = 50,
    polish: float = 0.1,
    polish_rate: float = 0.5,
    batch_size: int = 256,
) -> Method:
    """The response of training, natural ascent, a short descent, natural ascent.

    One after the other: :func:`~unlearn_jax.methods.source_removal.source_removal`,
    which knows where each forgotten example pulled and how far all in all;
    :func:`~unlearn_jax.methods.natural_ascent.natural_ascent`, which goes on until the
    forget set is as unknown as what was never seen, since a response of first order is
    too short where the net fits by heart;
    :func:`~unlearn_jax.methods.finetune.finetune`, which repairs on the retain set what
    both have bent; and the ascent once more, for what the descent has won back.

    Where nobody retains a label, no loss says to which other labels its examples go,
    and ascent to a high loss drives them anywhere. There the response ends at chance,
    where the label has lost its lead and the odds among the others show; the descent
    begins at the original and takes these examples along, with those odds and the label
    at the loss of what was never learned (:mod:`unlearn_jax.methods.lesson`); there is
    no ascent. Over twenty classes of digits and Fashion-MNIST the KL divergence from
    oracles is 1.6 times that between oracles (median; 1.1 to 3.5), and 2.5 times by
    ascent (``python benchmarks/removal_classes.py``).

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
            What the price of a request mostly is; 0.1 and 0.15 end as near to
            retrained nets (docs/second-order.md).
        polish_rate: Peak of its learning rate, falling to zero as a cosine, as a share
            of the peak in training.
        batch_size: Examples whose activations are held at once, except in the descent.

    Batch statistics move in the descent.

    Returns:
        Method that reads a trace; its state is those of the response and the ascent.

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
    respond = source_removal(
        learner, scale=scale, until="chance", batch_size=batch_size
    )
    ascent = natural_ascent(learner, nats=nats, steps=steps, batch_size=batch_size)

    def descent(taught: Learner, whole: int, rows: int) -> Method:
        """On rows of which as many as the training set has may be present."""
        return finetune(
            taught,
            epochs=max(1, round(passes)),
            learning_rate=polish_rate * recipe.learning_rate,
            batch_size=recipe.batch_size,
            schedule="cosine",
            share=1.0 if passes >= 1 else passes * whole / rows,
        )

    def prepare(
        key: PRNGKey, original: Variables, train: Batch, trace: Trace
    ) -> tuple[Trace, Ascent]:
        given = (key, original, train, trace)
        return respond.prepare(*given), ascent.prepare(*given)

    def forget(
        key: PRNGKey,
        state: tuple[Trace, Ascent],
        variables: Variables,
        request: Request,
    ) -> tuple[Variables, tuple[Trace, Ascent]]:
        trace, known = state
        weights = request.forget.weights
        lost = unretained(trace.unseen, *request) & (weights > 0)
        others = request._replace(
            forget=request.forget._replace(weights=jnp.where(lost, 0, weights))
        )
        moved, left = respond.forget(key, trace, variables, request)
        taught, data = learner, request.retain
        if trace.unseen.foreign.size:
            taught, data = with_lesson(learner, moved, trace.unseen, request, lost)
        climbed, _ = ascent.forget(key, known, moved, others)
        # Of a label that is lost the response says what the examples are otherwise; a
        # descent that is taught so begins before it, and has nothing to repair.
        some = jnp.any(~lost & (weights > 0))
        start = tree.where(some, climbed, variables)
        tuned = descent(taught, len(request.retain.weights), len(data.weights))
        own = jax.random.split(key, 4)[2]  # as the third of a chain of four
        polished, _ = tuned.forget(own, (), start, Request(others.forget, data))
        found, _ = ascent.forget(key, known, polished, others)
        return found, (left, known)

    return Method(prepare, forget, reads_trace=True)
