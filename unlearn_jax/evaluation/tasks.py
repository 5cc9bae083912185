"""What a task is judged by: its loss and its metrics, decided in one place."""

from collections.abc import Mapping
from typing import NamedTuple

from unlearn_jax.evaluation import METRICS
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.types import OutputLoss


class Entry(NamedTuple):
    """Description: one kind of prediction.

    Attributes:
        loss: What models of it are trained by.
        metrics: Names in ``METRICS`` that are defined for it.
    """

    loss: OutputLoss
    metrics: tuple[str, ...]


def _metrics(task: str) -> tuple[str, ...]:
    return tuple(name for name, metric in METRICS.items() if task in metric.tasks)


TASKS: Mapping[str, Entry] = {
    "classification": Entry(cross_entropy, _metrics("classification")),
    "regression": Entry(squared_error, _metrics("regression")),
}
"""Task of a data set -> how it is trained and judged."""
