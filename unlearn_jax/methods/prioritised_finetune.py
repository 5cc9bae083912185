"""Fine-tunes on the retain set, fastest where the forget set mattered most."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Params, PRNGKey, Variables


def forget_priority(forgotten: Params, retained: Params) -> Params:
    """F_forget / (F_forget + F_retain) of each parameter, from 0 to 1.

    Zero where both are zero: nobody asks for a parameter without importance.
    """

    def share(f: Array, r: Array) -> Array:
        total = f + r
        nothing = total <= 0  # false for NaN, which comes out
        return jnp.where(nothing, 0, f / jnp.where(nothing, 1, total))

    return jax.tree.map(share, forgotten, retained)


@entrance()
def prioritised_finetune(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Train on, on the retain set, each parameter at its own pace.

    Every update is multiplied by the parameter's priority, its share of importance
    F_forget / (F_forget + F_retain) with F the mean squared gradient per example at the
    original: what only the retain set needs hardly moves.

    Args:
        learner: Optimiser, momentum and weight decay are those of its recipe; the
            priority multiplies what they make together.
        epochs: Passes over the retain set.
        learning_rate: Constant step size of a parameter of priority one.
        batch_size: Examples per step.

    Batch statistics move; with nothing to forget, nothing does.

    Cost: (epochs + 1) × retain examples gradients, and one per forget example.
    Source: ours; no single source. Learning rates and updates in proportion to
        importance are common, this ratio is our choice.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
    )
    tuned = learner._replace(recipe=recipe)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        objective = bind(learner.model, variables.stats, learner.loss)

        def importance(data: Any) -> Params:
            return empirical_fisher_diagonal(
                objective, variables.params, data, batch_size=32
            )

        pace = forget_priority(importance(request.forget), importance(request.retain))
        moved = fit(key, tuned, request.retain, start=variables, pace=pace)
        asked = jnp.any(request.forget.weights > 0)
        return tree.where(asked, moved, variables)

    return stateless(forget)
