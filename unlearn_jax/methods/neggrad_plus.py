"""Descends on the retain set and ascends on the forget set, in one weighted loss."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.methods.paired import Part, paired_descent, part_of
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

    def pair_loss(
        key: Any, params: Any, stats: Any, carried: Any, retain: Part, forget: Part
    ) -> Any:
        keep_key, lose_key = jax.random.split(key)
        kept, stats = keep(keep_key, params, stats, *retain)

        def push(stats: Any) -> Any:
            lost, stats = lose(lose_key, params, stats, *forget)
            return lost.astype(kept.dtype), stats

        lost, stats = jax.lax.cond(
            jnp.any(forget.weights > 0),
            push,
            lambda stats: (jnp.zeros_like(kept), stats),
            stats,
        )
        return share * kept - (1 - share) * lost, stats, carried

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        loop = choose_fit_loop(learner, request.retain, key, variables)
        moved, *_ = paired_descent(
            key,
            variables,
            part_of(request.retain),
            part_of(request.forget),
            pair_loss,
            recipe,
            beside_batch=forget_batch,
            loop=loop,
        )
        return moved

    return stateless(forget)
