"""The images, the generator that learns them, and what is to be erased."""

from typing import Generic, NamedTuple, TypeVar

from experiments.canvas.config import GeneratorConfig
from experiments.canvas.request import Wanted
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.canvas import Canvas, digit_canvas
from unlearn_jax.data.captions import Grammar
from unlearn_jax.diffusion.schedule import Schedule, cosine_schedule
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.models.diffusion_transformer import diffusion_transformer

ConfigT = TypeVar("ConfigT", bound=GeneratorConfig)


class Setting(NamedTuple, Generic[ConfigT]):
    """Description: the images, the generator, and what to erase."""

    config: ConfigT
    wanted: Wanted
    canvas: Canvas
    denoiser: Denoiser
    schedule: Schedule

    @property
    def dataset(self) -> Dataset:
        """Images with their classes."""
        return self.canvas.dataset


def build(config: ConfigT) -> Setting[ConfigT]:
    """Draw the images.

    Raises:
        ValueError: a class or a style that the digits do not have, the same one twice,
            or sizes of the generator that do not fit.
    """
    canvas = digit_canvas(seed=config.seed)
    grammar = canvas.grammar
    for kind, own, anchor, groups in (
        ("target", config.target, config.anchor, grammar.classes),
        ("style", config.style, config.style_anchor, grammar.styles),
    ):
        if max(own, anchor) >= len(groups) or own == anchor:
            names = ", ".join(words[0] for words in groups)
            raise ValueError(
                f"got {kind} {own} and the anchor {anchor}, expected two of 0 to "
                f"{len(groups) - 1}: {names}"
            )
    denoiser = diffusion_transformer(
        (8, 8, 1),
        len(grammar.words),
        width=config.width,
        depth=config.depth,
        text_width=config.text_width,
        text_depth=min(config.depth, 2),
    )
    return Setting(
        config,
        wanted_of(config, grammar),
        canvas,
        denoiser,
        cosine_schedule(config.times),
    )


def wanted_of(config: GeneratorConfig, grammar: Grammar) -> Wanted:
    """What a configuration asks to erase, in words of the grammar."""
    return Wanted(
        config.request,
        config.target,
        config.anchor,
        config.style,
        config.style_anchor,
        grammar,
    )
