"""Descends on the retain set and hopes that the rest fades."""

import math
from dataclasses import replace

import jax

from unlearn_jax import tree
from unlearn_jax.data.batch import sample
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def finetune(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
    schedule: str = "constant",
    share: float = 1.0,
) -> Method:
    """Train on from the original model, on the retain set alone.

    Args:
        learner: Optimiser, momentum and weight decay are those of its recipe.
        epochs: Passes over the retain set.
        learning_rate: Step size, the largest one under a schedule that falls.
        batch_size: Examples per step.
        schedule: As in ``Recipe``.
        share: Of the examples, retained and forgotten, as many retained ones are
            drawn once and trained on: for less than a pass.

    Batch statistics move.

    Raises:
        ValueError: a share that is not in (0, 1].

    Cost: share × epochs × retain examples gradients.
    Source: baseline FT of Jia et al. 2023, arXiv 2304.04934. As published, without
        augmentation unless the recipe asks for it.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected a number in (0, 1]")
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule=schedule,  # pyright: ignore[reportArgumentType] - Recipe refuses others
    )
    tuned = learner._replace(recipe=recipe)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        data = request.retain
        if share < 1:
            key, draw = jax.random.split(key)
            data = sample(draw, data, math.ceil(share * tree.leading_axis(data)))
        return fit(key, tuned, data, start=variables)

    return stateless(forget)
