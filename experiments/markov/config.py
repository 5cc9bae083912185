"""The chains, the model, and what every method may spend."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.frame.rules import at_least
from experiments.language.config import LANGUAGE_RULES, LanguageConfig
from experiments.language.contenders import CONTENDERS
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """The chains, and what all studies of sequences are asked.

    Attributes:
        counts: Training sequences of the chains; the first chain is retained, all
            others are forgotten in one request.
        tests: Test sequences of each chain.
        length: Steps of every sequence.
        leakage: Probability that a chain leaves its own states.
    """

    counts: tuple[int, ...] = (2400, 400, 400)
    tests: int = 200
    length: int = 16
    leakage: float = 0.2
    depth: int = 1
    width: int = 32
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            epochs=15,
            batch_size=64,
            learning_rate=3e-3,
            optimizer="adam",
            weight_decay=0.0,
        )
    )
    passes: int = 10
    models: int = 4


RULES = (
    *LANGUAGE_RULES,
    *at_least(1, "counts", "tests", "length"),
    *at_least(0, "leakage"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the chains are drawn whatever the data's name."""
    del data
    small = Config()
    smoke = replace(
        small,
        scale="smoke",
        counts=(120, 40, 40),
        tests=40,
        length=8,
        depth=1,
        width=16,
        recipe=replace(small.recipe, epochs=8, batch_size=32),
        methods=("identity", "npo", "retain_newton"),
        trials=1,
        passes=6,
        models=2,
    )
    paper = replace(
        small,
        scale="paper",
        counts=(10_000, 5_000, 5_000),
        tests=2_000,
        length=20,
        methods=tuple(CONTENDERS),
        trials=4,
        depth=4,
        width=128,
        recipe=replace(small.recipe, epochs=5, batch_size=128, learning_rate=5e-4),
    )
    return {"small": small, "smoke": smoke, "paper": paper}
