"""Fits random labels on the forget set, true ones on the rest."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from unlearn_jax.loop import rounds
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import TrainState, begin, descend, steps_per_pass
from unlearn_jax.train.fit import choose_fit_loop, training_loss
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Params, PRNGKey, Variables


@entrance()
def random_labels(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Method:
    """Alternate passes: the forget set with random labels, then the retain set.

    Args:
        learner: Its loss takes class indices; l2 and the recipe's optimiser, decay and
            augmentation hold in both passes.
        epochs: Pairs of passes.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    Labels are drawn afresh for every batch, uniformly over all classes, so the true one
    comes up now and then. Batch statistics move.

    Cost: epochs × all examples gradients.
    Source: RL of Fan et al. 2024, arXiv 2310.12508, in the sequential order that their
        code uses for CIFAR-10. As published.
    """
    return alternating(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )


def alternating(
    learner: Learner,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    home: Callable[[Params, Any], Any] | None = None,
) -> Method:
    """The passes of :func:`random_labels`, held at home if one is given.

    Args:
        learner: As there.
        epochs: As there.
        learning_rate: As there.
        batch_size: As there.
        home: Of the original parameters and the number of the pair of passes, see
            :func:`unlearn_jax.train.descent.descend`.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
    )
    tuned = learner._replace(recipe=recipe)
    keep = training_loss(tuned)

    def mislabel(key: Any, params: Any, stats: Any, examples: Any, weights: Any) -> Any:
        label_key, step_key = jax.random.split(key)
        inputs, targets = examples
        outputs = jax.eval_shape(learner.model.apply, Variables(params, stats), inputs)
        labels = jax.random.randint(
            label_key, targets.shape, 0, outputs.shape[-1], targets.dtype
        )
        return keep(step_key, params, stats, (inputs, labels), weights)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        loop = choose_fit_loop(learner, request.retain, key, variables)
        total = epochs * (
            steps_per_pass(request.forget.weights, batch_size)
            + steps_per_pass(request.retain.weights, batch_size)
        )

        def epoch(index: Any, state: TrainState, constants: Any) -> TrainState:
            key, request, total, original = constants
            pairs = ((request.forget, mislabel), (request.retain, keep))
            for part, (data, loss) in enumerate(pairs):
                state = descend(
                    jax.random.fold_in(key, 2 * index + part),
                    state,
                    (data.inputs, data.targets),
                    data.weights,
                    loss,
                    recipe,
                    total_steps=total,
                    home=None if home is None else home(original, index),
                    loop=loop,
                )
            return state

        state = begin(variables, recipe)
        constants = (key, request, total, variables.params)
        return rounds(epochs, epoch, state, constants, loop=loop).variables

    return stateless(forget)
