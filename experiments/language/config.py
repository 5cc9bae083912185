"""What studies of sequences are asked alike."""

from dataclasses import dataclass

from experiments.frame.config import StudyConfig
from experiments.frame.rules import above, at_least, one_of, some
from experiments.language.contenders import CONTENDERS, SHOWN
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(StudyConfig):
    """The model, who takes part, and what every method may spend.

    Attributes:
        depth: Blocks of the transformer.
        width: Numbers at each position between blocks.
        recipe: Of training.
        methods: Names in ``CONTENDERS``.
        trials: Settings of each method, the first ones of its list.
        passes: Gradients that a method may spend, in passes over the forget set.
        budget: Rise of the retain loss that a setting may cost [nats per token].
        models: Seeds, of original and retrained models alike.
        seed: Draws the data.
    """

    depth: int
    width: int
    recipe: Recipe
    passes: int
    methods: tuple[str, ...] = SHOWN
    trials: int = 3
    budget: float = 0.05
    models: int = 3
    seed: int = 0


LANGUAGE_RULES = (
    *at_least(1, "depth", "width", "trials", "passes", "models"),
    *at_least(0, "seed"),
    *above(0, "budget"),
    *some("methods"),
    *one_of(CONTENDERS, "methods"),
)
"""Of what is asked alike."""
