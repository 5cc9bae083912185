"""JiT: flatten the outputs around what is to be forgotten, from that alone."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.methods.guard import check_floating, entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, PRNGKey, Variables


@entrance()
def lipschitz(
    learner: Learner,
    *,
    sigma: float = 0.5,
    samples: int = 25,
    epochs: int = 1,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
) -> Method:
    """Descend on how fast the outputs change about each example to forget.

    A step minimises the sum over the examples x of its batch and the mean over draws
    x' = x + N(0, σ²), cut to the range of the batch's values, of
    ‖f(x) − f(x')‖ / ‖x − x'‖, with f(x') held: a local Lipschitz constant.

    Args:
        learner: Only its model is used.
        sigma: Standard deviation of the noise [input]. Published for whole classes and
            images of unit scale; 0.01 for random sets.
        samples: Draws for each example and step.
        epochs: Passes over the forget set; published, one.
        learning_rate: Of plain SGD. The loss is a sum over the batch, so a step grows
            with ``batch_size``.
        batch_size: Examples per step.

    No label and no retained example is read. The model runs in evaluation mode: batch
    statistics stay.

    Raises:
        ValueError: from ``forget``, when inputs are whole numbers.

    Cost: epochs × forget examples × (1 gradient and ``samples`` forward passes).
    Source: Foster et al. 2024, arXiv 2402.01401 (JiT), with loss, noise and step of its
        code. Differs: a draw that the cut leaves where it was counts 0.
    """
    model = learner.model
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        loop=learner.recipe.loop,
    )

    def step_loss(
        key: Any, params: Any, stats: Any, inputs: Any, weights: Any
    ) -> tuple[Array, Any]:
        at = Variables(params, stats)
        held = jax.lax.stop_gradient(at)

        def around(key: PRNGKey) -> tuple[Array, Array]:
            moved = perturbed(key, inputs, sigma)
            return model.apply(held, moved), lengths(moved, inputs)

        outputs, distances = jax.lax.map(around, jax.random.split(key, samples))
        here = model.apply(at, inputs)
        slopes = jax.vmap(
            lambda there, far: jnp.where(
                far > 0, lengths(here, there) / jnp.where(far > 0, far, 1), 0
            )
        )(outputs, distances)
        return jnp.sum(weights * jnp.mean(slopes, axis=0)), stats

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        check_floating("lipschitz", request.forget)
        lost = request.forget
        return optimise(
            key,
            begin(variables, recipe),
            lost.inputs,
            lost.weights,
            step_loss,
            recipe,
            loop=choose_fit_loop(learner, lost, key, variables),
        ).variables

    return stateless(forget)


def perturbed(key: PRNGKey, inputs: Any, sigma: float) -> Any:
    """Inputs plus N(0, σ²), each array cut to the range of its values."""
    leaves, structure = jax.tree.flatten(inputs)
    keys = jax.random.split(key, len(leaves))

    def one(key: PRNGKey, x: Array) -> Array:
        noise = sigma * jax.random.normal(key, x.shape, x.dtype)
        return jnp.clip(x + noise, jnp.min(x), jnp.max(x))

    moved = [one(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, moved)


def lengths(a: Any, b: Any) -> Array:
    """(n,) Euclidean norms of a − b over all but the first axis; slope 0 where 0."""
    squares = sum(
        jnp.sum(jnp.square(x - y).reshape(x.shape[0], -1), axis=1)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    none = squares == 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, squares)))
