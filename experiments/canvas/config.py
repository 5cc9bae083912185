"""The generator, its judge, and what is asked of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.canvas.editors import EDITORS
from experiments.canvas.request import KINDS
from experiments.canvas.tuners import TUNERS
from experiments.frame.config import StudyConfig
from experiments.frame.rules import above, at_least, one_of, some
from unlearn_jax.train.recipe import Recipe


def adam(epochs: int, rate: float) -> Recipe:
    """Of a generator or a judge: batches of 64, no weight decay."""
    return Recipe(
        epochs=epochs,
        batch_size=64,
        learning_rate=rate,
        optimizer="adam",
        weight_decay=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(StudyConfig):
    """The generator and its judges, of every study of erased drawings.

    Attributes:
        width: Numbers at each position of the generator.
        text_width: Of the embeddings that the edited maps read.
        depth: Blocks.
        times: Steps from an image to noise.
        recipe: Of the generator's training.
        judge: Of the two classifiers' training.
        request: What is erased: "class", "style", or "pair", a class in one style.
        target: The class that is erased, a digit.
        anchor: The class that edits put in its place.
        style: The style that is erased: 0 plain, 1 inverted, 2 striped, 3 shaded.
        style_anchor: The style that edits put in its place.
        oracles: Generators that are retrained without it; 0 for a first look.
        steps: Of sampling.
        guidance: Of sampling.
        attack_l2: λ of the closed-form attack: bounds the embedding that it finds.
        seed: Draws everything.
    """

    width: int = 48
    text_width: int = 48
    depth: int = 3
    times: int = 200
    recipe: Recipe = field(default_factory=lambda: adam(60, 2e-3))
    judge: Recipe = field(default_factory=lambda: adam(40, 2e-3))
    request: str = "class"
    target: int = 3
    anchor: int = 8
    style: int = 2
    style_anchor: int = 0
    oracles: int = 3
    steps: int = 25
    guidance: float = 2.0
    attack_l2: float = 0.1
    seed: int = 0


GENERATOR_RULES = (
    *at_least(1, "width", "text_width", "depth", "times", "steps"),
    *at_least(0, "seed", "guidance", "target", "anchor", "oracles"),
    *at_least(0, "style", "style_anchor"),
    *above(0, "attack_l2"),
    *one_of(KINDS, "request"),
)
TINY: dict[str, Any] = {
    "scale": "smoke",
    "width": 16,
    "text_width": 16,
    "depth": 1,
    "times": 20,
    "recipe": adam(1, 2e-3),
    "judge": adam(2, 2e-3),
    "oracles": 1,
    "steps": 4,
}
"""A generator that learns nothing, to see that all runs."""


@dataclass(frozen=True, kw_only=True)
class Config(GeneratorConfig):
    """The generator, its judges, and what is asked of both.

    Attributes:
        methods: Names in ``EDITORS``, which take milliseconds, and in ``TUNERS``, which
            take seconds to minutes.
        samples: Images of each class in each style.
    """

    methods: tuple[str, ...] = (*EDITORS, *TUNERS)
    samples: int = 25


RULES = (
    *GENERATOR_RULES,
    *at_least(1, "samples"),
    *some("methods"),
    *one_of({**EDITORS, **TUNERS}, "methods"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the images are drawn whatever the data's name."""
    del data
    small = Config()
    smoke = replace(small, **TINY, methods=("noise", "uce"), samples=1)
    paper = replace(
        small,
        scale="paper",
        width=96,
        text_width=96,
        samples=100,
        steps=50,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
