"""Gives what is to be forgotten to the class behind the nearest boundary."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.methods.guard import check_floating, entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, PRNGKey, Variables


@entrance()
def boundary_shrink(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 5e-6,
    batch_size: int = 256,
    step: float = 0.1,
) -> Method:
    """Fit each forget example to the other class that it is nearest to.

    That class is the likeliest but its own after one step along the sign of the
    gradient of the original's loss by the inputs, which may not leave their range.

    Args:
        learner: Its loss takes class indices; inputs are floating point. Optimiser,
            momentum, weight decay, augmentation and l2 hold.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Examples per step.
        step: Length of the step in every input, as a share of the range of the forget
            set's inputs (no unit).

    Batch statistics move; those of the original find the class.

    Raises:
        ValueError: from ``forget``, when inputs are whole numbers.

    Cost: epochs + 1 gradients per forget example, and a forward pass.
    Source: Chen et al. 2023, arXiv 2303.11570, with the schedule of the code of Fan et
        al. 2024 (arXiv 2310.12508). Differs: released code takes the class of the
        stepped input, which is the example's own where no boundary is crossed; and its
        range is that of pixels, 0 to 1.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
    )
    tuned = learner._replace(recipe=recipe)

    def neighbours(examples: Any, ends: Any, variables: Variables) -> Array:
        inputs, targets = examples

        def total(inputs: Any) -> Array:
            outputs = learner.model.apply(variables, inputs)
            return jnp.sum(learner.loss(outputs, targets))

        slopes = jax.grad(total)(inputs)
        stepped = jax.tree.map(
            lambda x, slope, low, high: jnp.clip(
                x + step * (high - low) * jnp.sign(slope), low, high
            ),
            inputs,
            slopes,
            *ends,
        )
        outputs = learner.model.apply(variables, stepped)
        own = jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
        return jnp.argmax(jnp.where(own, -jnp.inf, outputs), 1).astype(targets.dtype)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        check_floating("boundary_shrink", request.forget)
        lost = present(request.forget)
        loop = choose_fit_loop(learner, lost, key, variables)
        ends = jax.tree.map(jnp.min, lost.inputs), jax.tree.map(jnp.max, lost.inputs)
        labels = collect(
            neighbours, (lost.inputs, lost.targets), ends, variables, loop=loop
        )
        given = request.forget._replace(targets=labels)
        return fit(key, tuned, given, start=variables)

    return stateless(forget)
