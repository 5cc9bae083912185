"""Descends on the retain set and hopes that the rest fades."""

from dataclasses import replace

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
) -> Method:
    """Train on from the original model, on the retain set alone.

    Args:
        learner: Optimiser, momentum and weight decay are those of its recipe.
        epochs: Passes over the retain set.
        learning_rate: Step size, the largest one under a schedule that falls.
        batch_size: Examples per step.
        schedule: As in ``Recipe``.

    Batch statistics move.

    Cost: epochs × retain examples gradients.
    Source: baseline FT of Jia et al. 2023, arXiv 2304.04934. As published, without
        augmentation unless the recipe asks for it.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule=schedule,  # pyright: ignore[reportArgumentType] - Recipe refuses others
    )
    tuned = learner._replace(recipe=recipe)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        return fit(key, tuned, request.retain, start=variables)

    return stateless(forget)
