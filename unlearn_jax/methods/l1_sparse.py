"""Fine-tunes on the retain set while an l1 penalty thins the model out."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.loop import rounds
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import TrainState, begin, descend, steps_per_pass
from unlearn_jax.train.fit import choose_fit_loop, order_stream, training_loss
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import PRNGKey, Variables

VARIANTS = ("published", "proximal")


@entrance()
def l1_sparse(
    learner: Learner,
    *,
    alpha: float = 1e-4,
    variant: str = "published",
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Train on, on the retain set, against loss + γₑ ‖θ‖₁, γₑ = α (1 − e / epochs).

    Args:
        learner: Optimiser, momentum, weight decay and augmentation are those of its
            recipe, as in ``finetune``.
        alpha: Strength of the penalty in the first epoch [loss / parameter]; it falls
            by as much after every one, and α / epochs is left in the last.
        variant: "published": γₑ times the sign of every parameter is added to its
            gradient, which brings none to rest at zero. "proximal": a soft threshold
            of learning rate × γₑ / (1 − momentum) follows every step, so that
            parameters become exactly zero; where steps come to rest, the penalised
            loss is stationary, whatever the momentum.
        epochs: Passes over the retain set.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    Biases and scales are penalised too. Batch statistics move.

    Raises:
        ValueError: an unknown ``variant``, or "proximal" with a recipe whose steps are
            not of one length (Adam), or of momentum 1 or more.

    Cost: epochs × retain examples gradients.
    Source: ℓ1-sparse MU of Jia et al. 2023, arXiv 2304.04934, in the schedule of their
        code. As published but for ``alpha``, which is that of scripts derived from it
        for SalUn: the 0.2 of the README leaves nothing of a model. "proximal" is ours.
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from {', '.join(VARIANTS)}"
        )
    proximal = variant == "proximal"
    if proximal:
        _check_steps(learner.recipe)
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
    )
    data_loss = training_loss(learner._replace(recipe=recipe))

    # The strength rides in the stats: an argument of the compiled steps.
    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        value, stats = data_loss(key, params, riding["stats"], examples, weights)
        if not proximal:
            sizes = [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)]
            value = value + (riding["strength"] * sum(sizes)).astype(value.dtype)
        return value, {**riding, "stats": stats}

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        data = request.retain
        loop = choose_fit_loop(learner, data, key, variables)
        total = epochs * steps_per_pass(data.weights, batch_size)
        real = jnp.result_type(float)

        def epoch(index: Any, state: TrainState, constants: Any) -> TrainState:
            key, data, total = constants
            at = state.variables
            strength = jnp.asarray(alpha * (1 - index / epochs), real)
            stats = {**at.stats, "strength": strength}
            reach = learning_rate / (1 - recipe.momentum) if proximal else 0.0
            return descend(
                jax.random.fold_in(key, index),
                state._replace(variables=at._replace(stats=stats)),
                (data.inputs, data.targets),
                data.weights,
                step_loss,
                recipe,
                total_steps=total,
                shrink=reach * strength if proximal else None,
                loop=loop,
            )

        riding = {"stats": variables.stats, "strength": jnp.zeros((), real)}
        state = begin(Variables(variables.params, riding), recipe)
        constants = (order_stream(key), data, total)
        moved = rounds(epochs, epoch, state, constants, loop=loop).variables
        return Variables(moved.params, moved.stats["stats"])

    return stateless(forget)


def _check_steps(recipe: Recipe) -> None:
    """Refuse a recipe whose steps have no length that a threshold could match."""
    if recipe.optimizer != "sgd" or not recipe.momentum < 1:
        raise ValueError(
            "variant 'proximal' needs a recipe of optimizer 'sgd' with momentum below "
            f"1, got {recipe.optimizer!r} with momentum {recipe.momentum}: change the "
            "recipe, or take variant 'published'"
        )
