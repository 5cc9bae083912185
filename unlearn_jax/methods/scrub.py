"""SCRUB: disobey the teacher on the forget set, obey it on the retain set."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect
from unlearn_jax.loop import rounds
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import TrainState, begin, descend, steps_per_pass
from unlearn_jax.train.fit import choose_fit_loop, weighted_mean
from unlearn_jax.train.loss import kl_divergence
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

FALLS = (3, 5, 9)
"""Epochs after which the released learning rate falls tenfold."""


@entrance(zero=("ascent_epochs",))
def scrub(
    learner: Learner,
    *,
    epochs: int = 3,
    ascent_epochs: int = 2,
    learning_rate: float = 5e-4,
    alpha: float = 0.001,
    gamma: float = 0.99,
    temperature: float = 4.0,
    retain_batch: int = 128,
    forget_batch: int = 32,
    weight_decay: float = 5e-4,
    falling: bool = True,
) -> Method:
    """Alternate: raise KL(original ‖ student) on the forget set, lower it on the rest.

    Args:
        learner: Model and loss; the original model is the teacher.
        epochs: Passes over the retain set, minimising gamma · loss + alpha · T² · KL.
        ascent_epochs: In the first so many epochs a pass over the forget set comes
            first, maximising T² · KL.
        learning_rate: Step size of SGD with momentum 0.9.
        alpha: Weight of the divergence on the retain set.
        gamma: Weight of the task loss on the retain set.
        temperature: T, divides all outputs before the softmax.
        retain_batch: Examples per step on the retain set.
        forget_batch: Examples per step on the forget set; its ratio to ``retain_batch``
            decides about stability.
        weight_decay: Of the optimiser.
        falling: The step size falls tenfold after epochs 3, 5 and 9, as released; else
            it is constant.

    Batch statistics move.

    Cost: epochs × retain + ascent_epochs × forget gradients, one forward pass each.
    Source: Kurmanji et al. 2023, arXiv 2302.09880, defaults of the large-scale runs in
        their code. As released: without the distance penalty of the text; the rewinding
        variant SCRUB+R is another method.
    """
    model = learner.model
    shared: dict[str, Any] = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "schedule": "constant",
        "loop": learner.recipe.loop,
    }
    descent = Recipe(batch_size=retain_batch, **shared)
    ascent = Recipe(batch_size=forget_batch, **shared)
    squared = temperature**2

    def divergence(
        key: Any, params: Any, stats: Any, inputs: Any, teacher: Any
    ) -> tuple[Any, Any, Any]:
        outputs, moved = model.apply_train(key, Variables(params, stats), inputs)
        distance = kl_divergence(outputs, teacher, temperature=temperature)
        return outputs, squared * distance, moved.stats

    def disobey(key: Any, params: Any, stats: Any, examples: Any, weights: Any) -> Any:
        inputs, _, teacher = examples
        _, distance, stats = divergence(key, params, stats, inputs, teacher)
        return -weighted_mean(distance, weights), stats

    def obey(key: Any, params: Any, stats: Any, examples: Any, weights: Any) -> Any:
        inputs, targets, teacher = examples
        outputs, distance, stats = divergence(key, params, stats, inputs, teacher)
        losses = gamma * learner.loss(outputs, targets) + alpha * distance
        return weighted_mean(losses, weights), stats

    def teach(inputs: Array, teacher: Variables) -> Array:
        return jax.nn.log_softmax(model.apply(teacher, inputs) / temperature)

    def pace(epoch: Any, state: TrainState) -> Any:
        if not falling or epochs <= FALLS[0]:
            return None
        factor = 0.1 ** jnp.sum(epoch >= jnp.asarray(FALLS))
        return jax.tree.map(lambda _: factor, state.variables.params)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        loop = choose_fit_loop(learner, request.retain, key, variables)

        def taught(data: Batch) -> tuple[Any, Any]:
            answers = collect(teach, data.inputs, variables, loop=loop)
            return (data.inputs, data.targets, answers), data.weights

        sets = taught(request.forget), taught(request.retain)
        steps = [
            steps_per_pass(request.forget.weights, forget_batch),
            steps_per_pass(request.retain.weights, retain_batch),
        ]
        total = ascent_epochs * steps[0] + epochs * steps[1]

        def passes(kinds: tuple[int, ...], first: int) -> Any:
            def body(index: Any, state: TrainState, constants: Any) -> TrainState:
                key, sets, total = constants
                for kind in kinds:
                    examples, weights = sets[kind]
                    state = descend(
                        jax.random.fold_in(key, 2 * (first + index) + kind),
                        state,
                        examples,
                        weights,
                        (disobey, obey)[kind],
                        (ascent, descent)[kind],
                        total_steps=total,
                        pace=pace(first + index, state),
                        loop=loop,
                    )
                return state

            return body

        constants = (key, sets, total)
        both = min(ascent_epochs, epochs)
        state = begin(variables, descent)
        state = rounds(both, passes((0, 1), 0), state, constants, loop=loop)
        rest = passes((1,), both)
        return rounds(epochs - both, rest, state, constants, loop=loop).variables

    return stateless(forget)
