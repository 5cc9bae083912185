"""Removal by unrolled response, descent and ascent; of lost labels by a lesson."""

import jax
import jax.numpy as jnp

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

_ANEW = 1
"""Of the key, for what only a lost label needs."""


@entrance()
def unrolled_removal(
    learner: Learner,
    *,
    scale: float = 1.0,
    nats: float = 5.0,
    steps: int = 50,
    polish: float = 0.1,
    polish_rate: float = 0.5,
    retraining: float = 0.1,
    batch_size: int = 256,
) -> Method:
    """The response of training, a short descent, natural ascent; or a taught descent.

    One after the other: :func:`~unlearn_jax.methods.source_removal.source_removal`,
    which knows where each forgotten example pulled and how far all in all;
    :func:`~unlearn_jax.methods.finetune.finetune`, which repairs on the retain set what
    it has bent; :func:`~unlearn_jax.methods.natural_ascent.natural_ascent`, until the
    forget set is as unknown as what was never seen, for what the response was too short
    of and the descent has won back.

    Where nobody retains a label, no loss says to which other labels its examples go,
    and ascent to a high loss drives them anywhere. Two know something of it: the
    response as far as chance, where the label has lost its lead and the odds among the
    others show, and a net trained anew for a few passes on the retain set. They err
    differently, and the mean of both is as near to retrained nets as these to one
    another. The descent takes these examples along, with those odds and the label at
    the loss of what was never learned (:mod:`unlearn_jax.methods.lesson`); there is no
    ascent (``python benchmarks/removal_classes.py``). It begins at the response here
    too: from the original, where the label still leads, its few passes have further to
    go, and an example of a thousand that stays is lost on the way.

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
        retraining: Passes of the net trained anew, as a share of those of training,
            counted as those of the descent; nothing is trained where no label is lost.
        batch_size: Examples whose activations are held at once, except in the descent.

    Batch statistics move in the descent.

    Returns:
        Method that reads a trace; its state is those of the response and the ascent.

    Raises:
        ValueError: a share that is not positive, or a recipe of "adam".

    Cost: that of its parts: polish · training, and per forget example one gradient for
        each checkpoint and each step; with a lost label retraining · training instead
        of the steps. Under ``vmap`` over requests each pays for both.
    Source: no single one; see its parts.
    """
    shares = {"polish": polish, "polish_rate": polish_rate, "retraining": retraining}
    for name, value in shares.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    recipe = learner.recipe
    respond = source_removal(
        learner, scale=scale, until="chance", batch_size=batch_size
    )
    ascent = natural_ascent(learner, nats=nats, steps=steps, batch_size=batch_size)

    def descent(
        taught: Learner, share: float, rate: float, *, rows: float = 1.0
    ) -> Method:
        """So many passes, a part of one on that part of ``rows`` times the rows."""
        passes = share * recipe.epochs
        return finetune(
            taught,
            epochs=max(1, round(passes)),
            learning_rate=rate * recipe.learning_rate,
            batch_size=recipe.batch_size,
            schedule="cosine",
            share=1.0 if passes >= 1 else passes * rows,
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
        some = jnp.any(~lost & (weights > 0))
        others = request.forget._replace(weights=jnp.where(lost, 0, weights))
        moved, left = respond.forget(key, trace, variables, request)
        own_key = jax.random.split(key, 3)[1]  # as the second of a chain of three
        rows = len(request.retain.weights)

        def repaired(moved: Variables) -> Variables:
            brief = descent(learner, polish, polish_rate)
            return brief.forget(own_key, (), moved, request)[0]

        def taught(moved: Variables) -> Variables:
            new_key, fit_key = jax.random.split(jax.random.fold_in(key, _ANEW))
            start = learner.model.init(new_key)
            new, _ = descent(learner, retraining, 1.0).forget(
                fit_key, (), start, request
            )
            given = (moved, new), trace.unseen, request, lost
            pupil, data = with_lesson(learner, *given)
            part = rows / len(data.weights)
            brief = descent(pupil, polish, polish_rate, rows=part)
            return brief.forget(own_key, (), moved, Request(others, data))[0]

        if trace.unseen.foreign.size:
            polished = jax.lax.cond(jnp.any(lost), taught, repaired, moved)
        else:
            polished = repaired(moved)
        left_over = request._replace(forget=others)

        def climb(start: Variables, known: Ascent) -> Variables:
            return ascent.forget(key, known, start, left_over)[0]

        found = jax.lax.cond(some, climb, lambda start, _: start, polished, known)
        return found, (left, known)

    return Method(prepare, forget, reads_trace=True)
