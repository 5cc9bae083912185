"""Imitation of a teacher: what its outputs are, and the loss of a student's step."""

from typing import Any

import jax

from unlearn_jax.data.accumulate import collect
from unlearn_jax.loop import Loop
from unlearn_jax.train.descent import StepLoss
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.loss import kl_divergence
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Inputs, Variables


def lesson(
    learner: Learner,
    teacher: Variables,
    inputs: Inputs,
    *,
    temperature: float,
    loop: Loop = "device",
) -> Array:
    """(n, k) log-probabilities of a teacher, in evaluation mode."""

    def teach(inputs: Array, at: Variables) -> Array:
        outputs = learner.model.apply(at, inputs)
        return jax.nn.log_softmax(outputs / temperature)

    return collect(teach, inputs, teacher, loop=loop)


def imitation(
    learner: Learner,
    *,
    temperature: float,
    by_class: bool = False,
    weight: float = 1.0,
) -> StepLoss:
    """Weight · KL(teacher ‖ student), and the loss of the labels where there are any.

    Examples are (inputs, lesson) or (inputs, lesson, labels).

    Args:
        learner: Its model, in training mode; its loss where there are labels.
        temperature: Divides the student's outputs before the divergence.
        by_class: Divide the divergence by the number of classes.
        weight: Of the divergence.
    """

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        inputs, teacher, *labels = examples
        outputs, moved = learner.model.apply_train(
            key, Variables(params, stats), inputs
        )
        values = kl_divergence(outputs, teacher, temperature=temperature)
        if by_class:
            values = values / outputs.shape[-1]
        if weight != 1:
            values = weight * values
        if labels:
            values = values + learner.loss(outputs, labels[0])
        return weighted_mean(values, weights), moved.stats

    return step_loss


def check_temperature(name: str, temperature: float) -> None:
    """Refuse to divide by zero.

    Raises:
        ValueError: the temperature is 0.
    """
    if temperature == 0:
        raise ValueError(f"{name}: temperature must be positive, got 0: raise it")
