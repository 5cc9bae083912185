"""How a model is trained, and the learner that everything is built from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax

from unlearn_jax.loop import Loop
from unlearn_jax.models.model import Model
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import OutputLoss


def _triangle(progress: Any) -> Any:
    return jnp.minimum(progress / 0.2, (1.0 - progress) / 0.8)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": jnp.ones_like,
    "cosine": lambda progress: 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
    "triangle": _triangle,
}

EPOCH_DECAY = 0.95

_CHOICES = {
    "optimizer": ("sgd", "adam"),
    "schedule": (*SCHEDULES, "exponential"),
    "augment": ("none", "flip_crop"),
    "loop": ("auto", "device", "host"),
}


@dataclass(frozen=True)
class Recipe:
    """Description: optimiser, schedule and length of one training run.

    Attributes:
        epochs: Passes over the examples whose weight is positive.
        batch_size: Examples per step.
        learning_rate: Peak step size.
        optimizer: "sgd" (momentum) or "adam".
        momentum: Of "sgd".
        weight_decay: Added to the gradient, times the parameter (in the optimiser; the
            ``l2`` of the learner is part of the objective instead).
        schedule: "constant"; "cosine" down to zero; "triangle": linear up to the peak
            at a fifth of the run, then linear to zero; "exponential": 5 % less with
            every epoch.
        augment: "none", or "flip_crop": random mirror image and shift of up to 4
            pixels.
        loop: Where the steps of an epoch run, see :mod:`unlearn_jax.loop`. "auto" takes
            one compiled loop, except for a foreign model with raw convolutions on CPU.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "triangle", "exponential"] = "cosine"
    augment: Literal["none", "flip_crop"] = "none"
    loop: Loop = "auto"

    def __post_init__(self) -> None:
        """Refuse impossible values when the recipe is built."""
        for name in ("epochs", "batch_size"):
            check_whole(name, getattr(self, name))
        check_number("learning_rate", self.learning_rate, positive=True)
        for name in ("momentum", "weight_decay"):
            check_number(name, getattr(self, name), least=0.0)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; choose from "
                    f"{', '.join(known)}"
                )


class Learner(NamedTuple):
    """Description: everything needed to train again: model, loss, l2 and recipe."""

    model: Model
    loss: OutputLoss
    l2: float = 0.0
    recipe: Recipe = Recipe()


def under_adam(
    learner: Learner, *, epochs: int, learning_rate: float, batch_size: int
) -> Learner:
    """The learner with a recipe of Adam at a constant rate, without weight decay.

    Loss, l2, augmentation and loop are the learner's own.
    """
    recipe = Recipe(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
        augment=learner.recipe.augment,
        loop=learner.recipe.loop,
    )
    return learner._replace(recipe=recipe)


def rate_at(recipe: Recipe, progress: Any) -> Any:
    """The learning rate when ``progress`` (0 to 1) of all steps have been taken."""
    if recipe.schedule == "exponential":
        epochs_done = jnp.floor(progress * recipe.epochs + 1e-3)
        return recipe.learning_rate * EPOCH_DECAY**epochs_done
    return recipe.learning_rate * SCHEDULES[recipe.schedule](progress)


def optimizer(recipe: Recipe, total_steps: Any) -> optax.GradientTransformation:
    """The optax transformation of a recipe.

    Args:
        recipe: Its ``loop`` and ``batch_size`` are not read.
        total_steps: Steps of the whole run (may be traced); the schedule's length.
    """

    def rate(step: Any) -> Any:
        progress = jnp.asarray(step, jnp.float32) / jnp.maximum(total_steps, 1)
        return rate_at(recipe, progress.astype(jnp.float32))

    if recipe.optimizer == "adam":
        inner = optax.adam(rate)
    else:
        inner = optax.sgd(rate, momentum=recipe.momentum or None)
    if recipe.weight_decay:
        return optax.chain(optax.add_decayed_weights(recipe.weight_decay), inner)
    return inner
