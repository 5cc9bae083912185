"""What is differentiated: outputs, loss and l2, bound to frozen batch statistics."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.data.accumulate import mass, widened
from unlearn_jax.models.model import Model
from unlearn_jax.types import (
    Batch,
    OutputLoss,
    Outputs,
    Params,
    PerExample,
    Scalar,
    Stats,
    Variables,
)


class Objective(NamedTuple):
    """Description: predict, then loss; curvature needs the seam between them.

    Attributes:
        predict: ``(params, inputs) -> outputs`` in evaluation mode.
        loss: One value per example from outputs and targets.
        l2: Coefficient of ½‖params‖².
    """

    predict: Any
    loss: OutputLoss
    l2: float = 0.0

    def example_losses(self, params: Params, batch: Batch) -> PerExample:
        """One loss per example, weights and l2 left out."""
        return self.loss(self.predict(params, batch.inputs), batch.targets)

    def total(self, params: Params, batch: Batch) -> Scalar:
        """Σᵢ wᵢ ℓᵢ, a weighted sum without l2."""
        return jnp.sum(widened(batch.weights) * self.example_losses(params, batch))

    def risk(self, params: Params, batch: Batch) -> Scalar:
        """Σᵢ wᵢ ℓᵢ / Σᵢ wᵢ + l2/2 · ‖params‖²; without any weight, only the l2 term."""
        mean = self.total(params, batch) / mass(batch.weights)
        return mean + 0.5 * self.l2 * tree.dot(params, params)


def bind(model: Model, stats: Stats, loss: OutputLoss, l2: float = 0.0) -> Objective:
    """The objective of a model whose batch statistics are held fixed at ``stats``."""

    def predict(params: Params, inputs: Any) -> Outputs:
        return model.apply(Variables(params, stats), inputs)

    return Objective(predict, loss, l2)
