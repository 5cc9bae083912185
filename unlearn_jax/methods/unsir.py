"""UNSIR: impair by noise that the model errs on most, then repair on what remains."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import tree
from unlearn_jax.data.accumulate import collect
from unlearn_jax.loop import fori_loop
from unlearn_jax.methods.guard import check_floating, entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, PRNGKey, Variables


@entrance()
def unsir(
    learner: Learner,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-4,
    batch_size: int = 256,
    noise_steps: int = 25,
    noise_rate: float = 0.1,
    penalty: float = 0.1,
) -> Method:
    """Learn noise under the labels to forget beside the retain set, then that alone.

    For every forget example noise is drawn from N(0, 1) and moved by Adam towards the
    largest ℓ(noise, label) − penalty · ‖noise‖², at the original in evaluation mode.
    To impair, the model fits the retain set and this noise under those labels; to
    repair, the retain set.

    Args:
        learner: Model, l2 and a loss of class indices; inputs are floating point.
        epochs: Passes of impairing, and as many of repairing.
        learning_rate: Step size of Adam in both.
        batch_size: Examples per step.
        noise_steps: Steps of Adam on the noise.
        noise_rate: Step size of these [input].
        penalty: Holds the noise back.

    Of the forget set only labels are read: published for whole classes, whose examples
    may be gone. Batch statistics move.

    Raises:
        ValueError: from ``forget``, when inputs are whole numbers.

    Cost: epochs × (forget + 2 × retain) + noise_steps × forget gradients.
    Source: Tarun et al. 2023, arXiv 2111.08947, with steps and rates of the code of
        Foster et al. 2024, arXiv 2308.07707. Differs: as much noise as examples to
        forget and the whole retain set, where that code takes a fixed number of batches
        of noise and 500 retained examples of each class.
    """
    model = learner.model
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
        loop=learner.recipe.loop,
    )
    tuned = learner._replace(recipe=recipe)
    adam = optax.adam(noise_rate)

    def worst(examples: Any, variables: Variables) -> Any:
        noise, labels = examples

        def merit(noise: Any) -> Array:
            losses = learner.loss(model.apply(variables, noise), labels)
            return jnp.sum(losses) - penalty * tree.dot(noise, noise)

        def step(_: Any, state: Any) -> Any:
            noise, moments = state
            downhill = tree.scale(-1, jax.grad(merit)(noise))
            updates, moments = adam.update(downhill, moments)
            return optax.apply_updates(noise, updates), moments

        start = (noise, adam.init(noise))
        return fori_loop(0, noise_steps, step, start, variables, labels)[0]

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        check_floating("unsir", request.forget)
        draw_key, impair_key, repair_key = jax.random.split(key, 3)
        lost, kept = request.forget, request.retain
        loop = choose_fit_loop(learner, kept, key, variables)
        like = jax.tree.map(jnp.asarray, lost.inputs)
        drawn = tree.random_like(draw_key, like, jax.random.normal)
        noise = collect(worst, (drawn, lost.targets), variables, loop=loop)
        both = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), kept, lost._replace(inputs=noise)
        )
        impaired = fit(impair_key, tuned, both, start=variables)
        return fit(repair_key, tuned, kept, start=impaired)

    return stateless(forget)
