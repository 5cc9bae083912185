"""Ascends on the loss of the forget set."""

from dataclasses import replace
from typing import Any

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop, training_loss
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def gradient_ascent(
    learner: Learner,
    *,
    epochs: int = 5,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
) -> Method:
    """Raise the loss on the forget set by plain ascent; nothing holds it back.

    Args:
        learner: Optimiser and momentum are those of its recipe; no weight decay.
        epochs: Passes over the forget set.
        learning_rate: Constant step size. The outcome hangs on it: a little less does
            nothing, a little more destroys the model.
        batch_size: Examples per step.

    Batch statistics move.

    Cost: epochs × forget examples gradients.
    Source: baseline GA of Jia et al. 2023, arXiv 2304.04934. Differs: no weight decay
        while ascending.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
        augment="none",
        weight_decay=0.0,
    )
    descent = training_loss(learner._replace(recipe=recipe, l2=0.0))

    def ascent(*arguments: Any) -> Any:
        value, stats = descent(*arguments)
        return -value, stats

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        state = optimise(
            key,
            begin(variables, recipe),
            (request.forget.inputs, request.forget.targets),
            request.forget.weights,
            ascent,
            recipe,
            loop=choose_fit_loop(learner, request.forget, key, variables),
        )
        return state.variables

    return stateless(forget)
