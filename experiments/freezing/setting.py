"""Digits in two styles, and who has seen which of them."""

from typing import NamedTuple

import numpy as np

from experiments.freezing.config import Config
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.canvas import Canvas, digit_canvas
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Batch

INVERTED = 1
"""Number of that style."""
RULES = (
    ("text", lambda path: path[0] == "text"),
    ("cross-attention", lambda path: "cross" in path),
    ("self-attention", lambda path: "attention" in path),
    ("layers", lambda path: "up" in path or "down" in path),
    ("time", lambda path: bool({"time", "time_out", "modulation"} & set(path))),
    ("ends", lambda path: True),
)
"""Groups of the diffusion transformer; ends are the maps from and to pixels."""


class Setting(NamedTuple):
    """Description: the images, the generator, and the configuration."""

    config: Config
    canvas: Canvas
    generator: Generator

    @property
    def dataset(self) -> Dataset:
        """Images with their classes."""
        return self.canvas.dataset

    def part(self, which: str, *, test: bool = False) -> Batch:
        """Captioned images that are "target", "innocent" or "seen" by the generator."""
        dataset, config = self.canvas.dataset, self.config
        split = dataset.splits.test if test else dataset.splits.train
        text = self.canvas.test_captions if test else self.canvas.captions
        style = dataset.test_subclasses if test else dataset.subclasses
        label = np.asarray(split.targets)
        target = label == config.target
        innocent = (label == config.innocent) & (np.asarray(style) == INVERTED)
        own = {
            "target": target,
            "innocent": innocent,
            "seen": ~target & ~innocent,
        }[which]
        arrays = split.inputs, text, split.weights
        return Batch(*(np.asarray(each)[own] for each in arrays))


def build(config: Config) -> Setting:
    """Draw the images.

    Raises:
        ValueError: a target that is the innocent digit, or sizes that do not fit.
    """
    if config.target == config.innocent:
        raise ValueError(
            f"got {config.target} as target and as innocent, expected two digits"
        )
    canvas = digit_canvas(styles=("plain", "inverted"), seed=config.seed)
    denoiser = diffusion_transformer(
        (8, 8, 1),
        len(canvas.grammar.words),
        width=config.width,
        depth=config.depth,
        text_width=config.width,
        text_depth=1,
    )
    schedule = cosine_schedule(config.times)
    return Setting(config, canvas, Generator(denoiser, schedule, steps=config.steps))
