"""Descends on the retain set and ascends on the forget set, in one weighted loss."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.loop import rounds
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import (
    TrainState,
    begin,
    descend,
    shuffled,
    steps_per_pass,
)
from unlearn_jax.train.fit import choose_fit_loop, training_loss
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def neggrad_plus(
    learner: Learner,
    *,
    share: float = 0.95,
    epochs: int = 10,
    learning_rate: float = 0.01,
    retain_batch: int = 32,
    forget_batch: int = 64,
) -> Method:
    """Minimise share · loss(retain set) − (1 − share) · loss(forget set).

    Every step sees a batch of each set. A pass is over the retain set; the forget set
    goes round in an order of the pass, and no step counts one of its examples twice.

    Args:
        learner: Model and loss; l2 holds with the loss on the retain set.
        share: Of the retain set, from 0 to 1 (no unit); 1 is fine-tuning. The outcome
            hangs on it, since the loss has no least value: a little more does nothing,
            a little less destroys the model.
        epochs: Passes over the retain set.
        learning_rate: Constant step size of plain SGD, without momentum and decay.
        retain_batch: Retained examples per step.
        forget_batch: Forgotten examples per step, or all there are if fewer.

    Batch statistics move, by the retained batch first.

    Raises:
        ValueError: ``share`` is outside [0, 1].

    Cost: epochs × retain × (1 + forget_batch / retain_batch) gradients.
    Source: NegGrad+ of Kurmanji et al. 2023, arXiv 2302.09880, defaults of the small
        runs in their code; 0.9999 and 5 epochs in those for membership attacks. As
        released for the latter; the small runs also add share · 0.05 ‖θ − θ original‖²
        and freeze batch statistics.
    """
    if not share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    recipe = Recipe(
        epochs=epochs,
        batch_size=retain_batch,
        learning_rate=learning_rate,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        loop=learner.recipe.loop,
    )
    keep = training_loss(learner._replace(recipe=recipe))
    lose = training_loss(learner._replace(recipe=recipe, l2=0.0))

    # The forget set and its order ride in the stats: arguments of the compiled steps.
    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        keep_key, lose_key = jax.random.split(key)
        kept, stats = keep(keep_key, params, riding["stats"], examples, weights)
        data, order, count = riding["forget"], riding["order"], riding["count"]
        place = jnp.arange(min(forget_batch, order.shape[0]))
        taken = jnp.minimum(count, place.shape[0])
        index = order[(riding["place"] + place) % jnp.maximum(count, 1)]
        there = jnp.where(place < taken, data.weights[index], 0)

        def push(stats: Any) -> Any:
            pairs = data.inputs, data.targets
            batch = jax.tree.map(lambda leaf: leaf[index], pairs)
            lost, stats = lose(lose_key, params, stats, batch, there)
            return lost.astype(kept.dtype), stats

        lost, stats = jax.lax.cond(
            count > 0, push, lambda stats: (jnp.zeros_like(kept), stats), stats
        )
        moved = {**riding, "stats": stats, "place": riding["place"] + taken}
        return share * kept - (1 - share) * lost, moved

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        data = request.retain
        loop = choose_fit_loop(learner, data, key, variables)
        total = epochs * steps_per_pass(data.weights, retain_batch)

        def ride(key: Any, stats: Any, forgotten: Any) -> Any:
            order, count = shuffled(key, forgotten.weights)
            place = jnp.zeros((), jnp.int32)
            told = {"forget": forgotten, "order": order, "count": count}
            return {"stats": stats, "place": place, **told}

        def epoch(index: Any, state: TrainState, constants: Any) -> TrainState:
            key, data, total = constants
            pass_key, order_key = jax.random.split(jax.random.fold_in(key, index))
            at = state.variables
            stats = ride(order_key, at.stats["stats"], at.stats["forget"])
            return descend(
                pass_key,
                state._replace(variables=at._replace(stats=stats)),
                (data.inputs, data.targets),
                data.weights,
                step_loss,
                recipe,
                total_steps=total,
                loop=loop,
            )

        riding = ride(key, variables.stats, jax.tree.map(jnp.asarray, request.forget))
        state = begin(Variables(variables.params, riding), recipe)
        constants = (key, data, total)
        moved = rounds(epochs, epoch, state, constants, loop=loop).variables
        return Variables(moved.params, moved.stats["stats"])

    return stateless(forget)
