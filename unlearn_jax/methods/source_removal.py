"""One step along the response of training, unrolled, to the loss of the forget set."""

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.trace import Trace, unrolled_response
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


@entrance()
def source_removal(
    learner: Learner, *, scale: float = 1.0, batch_size: int = 256
) -> Method:
    """θ + scale · δ, δ what training would have done otherwise without the forget set.

    A net that fits its examples has next to no slope left where they pulled it; the
    checkpoints of its training have. δ adds up what they say, see
    :mod:`unlearn_jax.attribution.trace`.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        scale: Length of the step (no unit); 1 is the prediction.
        batch_size: Examples whose activations are held at once.

    Batch statistics stay.

    Returns:
        Method that reads a trace; its state is the trace with the mean gradients of
        what is still in. Checkpoints and curvatures stay those of the first training.

    Cost: prepare, nothing beyond the trace; forget, a gradient of each forget example
        at each checkpoint.
    Source: SOURCE of Bae et al. 2024, arXiv 2405.12186, whose authors predict outputs
        by it. Differs: as :func:`unlearn_jax.attribution.trace.unrolled_response`
        says; the step is taken.
    """

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
        moved = tree.axpy(scale, change, variables.params)
        return variables._replace(params=moved), state._replace(slopes=slopes)

    return Method(prepare, forget, reads_trace=True)
