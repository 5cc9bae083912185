"""Pushes the forget set out while a spring holds every parameter near its start."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop, training_loss
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables

PUSHES = ("ascend", "retain")
ANCHORS = ("fisher", "uniform")


@entrance()
def anchored_finetune(
    learner: Learner,
    *,
    anchor: str = "fisher",
    push: str = "ascend",
    strength: float = 1.0,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> Method:
    """Minimise push(θ) + strength/2 · Σᵢ Fᵢ (θᵢ − θᵢ original)².

    Args:
        learner: Optimiser and momentum are those of its recipe; weight decay, l2 and
            augmentation are left out, since the penalty takes their place.
        anchor: What holds a parameter: "fisher", the mean squared gradient per retain
            example at the original; "uniform", one everywhere.
        push: "ascend" on the loss of the forget set, or descend on the "retain" set.
        strength: Of the penalty [loss / F / parameter²]. The pull strength × F of a
            parameter is capped at 1 / learning_rate, where one step leads back to the
            original: beyond, descent would overshoot and diverge.
        epochs: Passes over the set that pushes.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    Batch statistics move.

    Raises:
        ValueError: unknown ``anchor`` or ``push``, or a negative ``strength``.

    Cost: epochs × examples of the push gradients; "fisher" one more per retain example.
    Source: the penalty of Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3. Differs:
        the push is unlearning instead of a new task.
    """
    for name, value, known in (("anchor", anchor, ANCHORS), ("push", push, PUSHES)):
        if value not in known:
            raise ValueError(
                f"{name} {value!r} is unknown; choose from {', '.join(known)}"
            )
    if not strength >= 0:
        raise ValueError(f"strength must not be negative, got {strength}")
    descend = anchored(learner, push, epochs, learning_rate, batch_size)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        if anchor == "fisher":
            stiffness = empirical_fisher_diagonal(
                bind(learner.model, variables.stats, learner.loss),
                variables.params,
                request.retain,
            )
        else:
            stiffness = jax.tree.map(jnp.ones_like, variables.params)
        data = request.forget if push == "ascend" else request.retain
        return descend(key, variables, data, tree.scale(strength, stiffness))

    return stateless(forget)


def anchored(
    learner: Learner, push: str, epochs: int, learning_rate: float, batch_size: int
) -> Callable[[PRNGKey, Variables, Batch, Params], Variables]:
    """``(key, variables, data, stiffness) -> variables``: a push under given springs.

    Args:
        learner: As for :func:`anchored_finetune`.
        push: "ascend" on the data, or descend.
        epochs: Passes over the data.
        learning_rate: Constant step size; no stiffness counts above its inverse.
        batch_size: Examples per step.
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
    data_loss = training_loss(learner._replace(recipe=recipe, l2=0.0))
    sign = -1.0 if push == "ascend" else 1.0

    # The start and its stiffness ride in the stats: arguments of the compiled steps.
    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        value, stats = data_loss(key, params, riding["stats"], examples, weights)
        gap = tree.subtract(params, riding["start"])
        pull = tree.dot(jax.tree.map(jnp.multiply, riding["stiffness"], gap), gap)
        return sign * value + 0.5 * pull, {**riding, "stats": stats}

    def descend(
        key: PRNGKey, variables: Variables, data: Batch, stiffness: Params
    ) -> Variables:
        stiffness = jax.tree.map(lambda f: jnp.minimum(f, 1 / learning_rate), stiffness)
        riding = {
            "stats": variables.stats,
            "start": variables.params,
            "stiffness": stiffness,
        }
        state = optimise(
            key,
            begin(Variables(variables.params, riding), recipe),
            (data.inputs, data.targets),
            data.weights,
            step_loss,
            recipe,
            loop=choose_fit_loop(learner, data, key, variables),
        )
        moved = state.variables
        return Variables(moved.params, moved.stats["stats"])

    return descend


@entrance()
def ewc(
    learner: Learner,
    *,
    push: str = "ascend",
    strength: float = 100.0,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> Method:
    """Elastic: what the retain set needs is held firmly, the rest may go.

    :func:`anchored_finetune` with the Fisher diagonal of the retain set.

    Args:
        learner: As there.
        push: "ascend" on the forget set, or descend on the "retain" set.
        strength: Of the penalty [loss / F / parameter²].
        epochs: Passes over the set that pushes.
        learning_rate: Constant step size.
        batch_size: Examples per step.
    """
    return anchored_finetune(
        learner,
        anchor="fisher",
        push=push,
        strength=strength,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


@entrance()
def l2_to_init(
    learner: Learner,
    *,
    push: str = "ascend",
    strength: float = 1.0,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> Method:
    """:func:`ewc` without importances: every parameter is held alike.

    Args:
        learner: As there.
        push: "ascend" on the forget set, or descend on the "retain" set.
        strength: Of the penalty [loss / parameter²].
        epochs: Passes over the set that pushes.
        learning_rate: Constant step size.
        batch_size: Examples per step.
    """
    return anchored_finetune(
        learner,
        anchor="uniform",
        push=push,
        strength=strength,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
