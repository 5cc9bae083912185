"""What a kind of generator brings: how it is trained, asked, and made to forget."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.canvas import Canvas
from unlearn_jax.types import Batch, PRNGKey, Variables

Method = Callable[[PRNGKey, Variables], Variables]
"""Traced: the generator afterwards."""


class Setting(NamedTuple):
    """Description: plain digits from -1 to 1, and the configuration."""

    config: Any
    canvas: Canvas

    @property
    def dataset(self) -> Dataset:
        """Images with their classes."""
        return self.canvas.dataset

    @property
    def train(self) -> Batch:
        """What generators learn from."""
        return self.canvas.dataset.splits.train

    @property
    def test(self) -> Batch:
        """What they have not seen."""
        return self.canvas.dataset.splits.test

    def steps(self, count: int) -> int:
        """Of a method, at this scale."""
        return max(count // self.config.shorter, 1)


class Scene(NamedTuple):
    """Description: one kind of generator; all functions are traced.

    Attributes:
        init: ``key -> Variables``.
        fit: ``(key, images with weights) -> (variables, loss)``.
        labels: What each drawn image should be; None where nothing is asked: then it
            is what the original draws from that seed.
        draw: ``variables -> images``, one for each of ``labels``, from seeds that are
            the same for every generator.
        loss: ``(variables, images) -> mean`` of its own training loss, on images that
            it has not seen.
        unit: Of that loss, in words.
        methods: Name of a row → what forgets.
        code: Modules whose source decides the training.
        draws: Rows of ``methods`` that draw in another way than the rest.
    """

    init: Callable[[PRNGKey], Variables]
    fit: Callable[[PRNGKey, Batch], tuple[Variables, Any]]
    labels: np.ndarray | None
    draw: Callable[[Variables], Any]
    loss: Callable[[Variables, Batch], Any]
    unit: str
    methods: Mapping[str, Method]
    code: tuple[str, ...]
    draws: Mapping[str, Callable[[Variables], Any]] = {}
