"""One step along the response of training, unrolled, to the loss of the forget set."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.trace import Trace, losses_of, mean_loss, unrolled_response
from unlearn_jax.attribution.unseen import unretained, unseen_loss
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Scalar, Variables

HALVINGS = 6
"""Of a step that is too long: to a sixty-fourth of it."""
UNTIL = ("unseen", "chance")


@entrance()
def source_removal(
    learner: Learner,
    *,
    scale: float = 1.0,
    until: str = "unseen",
    batch_size: int = 256,
) -> Method:
    """θ + scale · δ, δ what training would have done otherwise without the forget set.

    A net that fits its examples has next to no slope left where they pulled it; the
    checkpoints of its training have. δ adds up what they say, see
    :mod:`unlearn_jax.attribution.trace`.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        scale: Length of the step (no unit); 1 is the prediction. Where a forgotten
            label is retained by nobody, which is no small change, the step ends before.
        until: Where: "unseen", the forget loss is that of what was never learned, see
            :mod:`unlearn_jax.attribution.unseen`; "chance", the loss of the examples
            with such a label is log k, so that the label has lost its lead over the
            other k - 1 and the response has gone no further than that.
        batch_size: Examples whose activations are held at once.

    Batch statistics stay.

    Returns:
        Method that reads a trace; its state is the trace with the mean gradients of
        what is still in. Checkpoints and curvatures stay those of the first training.

    Raises:
        ValueError: an unknown ``until``.

    Cost: prepare, nothing beyond the trace; forget, a gradient of each forget example
        at each checkpoint, one to seven forward passes over them.
    Source: SOURCE of Bae et al. 2024, arXiv 2405.12186, whose authors predict outputs
        by it. Differs: as :func:`unlearn_jax.attribution.trace.unrolled_response`
        says; the step is taken.
    """
    if until not in UNTIL:
        raise ValueError(f"until is {until!r}; choose from {', '.join(UNTIL)}")

    def prepare(key: PRNGKey, original: Variables, train: Batch, trace: Trace) -> Trace:
        del key, original, train
        return trace

    def forget(
        key: PRNGKey, state: Trace, variables: Variables, request: Request
    ) -> tuple[Variables, Trace]:
        del key
        kept = jnp.sum(request.retain.weights)
        change, slopes = unrolled_response(
            learner, state, request.forget, kept, batch_size=batch_size
        )
        lost = unretained(state.unseen, *request)
        lost &= request.forget.weights > 0
        judged = request.forget
        if until == "chance":
            # Of no weight without such a label; then the length is not asked for.
            judged = judged._replace(weights=jnp.where(lost, judged.weights, 0))
            labels = max(1, state.unseen.foreign.size)
            goal = jnp.log(jnp.asarray(labels, state.unseen.held_out.dtype))
        else:
            own = losses_of(learner, variables, request.forget)
            goal, _ = unseen_loss(state.unseen, *request, own)

        def loss(length: Any) -> Scalar:
            moved = tree.axpy(length, change, variables.params)
            at = variables._replace(params=moved)
            return mean_loss(learner, at, judged)

        length = jax.lax.cond(
            jnp.any(lost) & (loss(scale) > goal),
            lambda: _length_to(loss, goal, scale),
            lambda: jnp.asarray(scale, goal.dtype),
        )
        moved = tree.axpy(length, change, variables.params)
        return variables._replace(params=moved), state._replace(slopes=slopes)

    return Method(prepare, forget, reads_trace=True)


def _length_to(loss: Callable[[Any], Scalar], goal: Scalar, longest: float) -> Scalar:
    """The shortest length known to reach the goal, by halving."""

    def halve(_: Any, bounds: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        below, above = bounds
        middle = (below + above) / 2
        short = loss(middle) < goal
        return jnp.where(short, middle, below), jnp.where(short, above, middle)

    start = jnp.zeros((), goal.dtype), jnp.asarray(longest, goal.dtype)
    return jax.lax.fori_loop(0, HALVINGS, halve, start)[1]
