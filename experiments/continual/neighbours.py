"""Continual learners among the heads: approximate, but they store no row either."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.continual.heads import Applied, Contestant, Frozen, kept_bytes
from experiments.continual.sgd import RETRAIN, Spent, head_learner, programs, scaled
from experiments.continual.stream import Event
from experiments.frame.options import Options
from unlearn_jax.methods.streams import (
    Remembered,
    StreamLearner,
    ewc_stream,
    merging_stream,
    refresh_stream,
    sequential_stream,
)
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

NEIGHBOURS = {
    "sequential": "SGD, new rows alone",
    "ewc": "SGD, EWC",
    "fisher_merging": "SGD, Fisher merging",
    "refresh_learning": "SGD, refresh",
}
"""Names as in options, and in the tables."""
NEIGHBOUR_FACTORIES: dict[str, Callable[..., StreamLearner]] = {
    "sequential": sequential_stream,
    "ewc": ewc_stream,
    "fisher_merging": merging_stream,
    "refresh_learning": refresh_stream,
}


def check_options(recipe: Recipe, options: Options) -> None:
    """Refuse hyper-parameters that make no sense, before anything is trained.

    Raises:
        ValueError: an option out of range.
    """
    learner = head_learner(1, 2, recipe)
    for name, factory in NEIGHBOUR_FACTORIES.items():
        factory(learner, **options.of(name))


def neighbours(frozen: Frozen, recipe: Recipe, options: Options) -> list[Contestant]:
    """A head of each kind.

    Args:
        frozen: Frozen features.
        recipe: How a head is trained, from scratch and further.
        options: Hyper-parameters by the names of ``NEIGHBOURS``.

    Raises:
        ValueError: an option out of range.
    """
    learner = head_learner(frozen.features.shape[1], frozen.classes, recipe)
    rows, known = jnp.asarray(scaled(frozen.features)), programs()
    outputs = jax.jit(learner.model.apply)

    def contestant(name: str) -> Contestant:
        stream = NEIGHBOUR_FACTORIES[name](learner, **options.of(name))

        def batch(chosen: np.ndarray, labels: np.ndarray) -> Batch:
            targets = np.zeros(len(rows), np.int32)
            weights = np.zeros(len(rows), np.float32)
            targets[chosen], weights[chosen] = labels, 1
            return Batch(rows, jnp.asarray(targets), jnp.asarray(weights))

        def apply(state: Remembered, event: Event) -> Applied:
            spent, key = Spent(0.0, 0.0), jax.random.key(0)
            asked = (
                ("forget", event.forget, event.forget_labels),
                ("learn", event.learn, event.learn_labels),
            )
            for what, chosen, labels in asked:
                if chosen.size:
                    step = known(f"{name} {what}", getattr(stream, what))
                    state, spent = step(spent, key, state, batch(chosen, labels))
            return Applied(state, *spent)

        def scores(state: Remembered, features: np.ndarray) -> np.ndarray:
            inputs = jnp.asarray(scaled(features))
            return np.asarray(outputs(state.variables, inputs), np.float64)

        def start() -> Any:
            return stream.start(jax.random.key(0))

        return Contestant(
            NEIGHBOURS[name],
            RETRAIN,
            start,
            apply,
            scores,
            None,
            kept_bytes,
            lambda labels: (0, 0),
        )

    return [contestant(name) for name in NEIGHBOURS]
