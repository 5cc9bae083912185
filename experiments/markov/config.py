"""The chains, the model, and what every method may spend."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.frame.config import StudyConfig
from experiments.frame.rules import above, at_least, one_of, some
from experiments.language.contenders import CONTENDERS, SHOWN
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True)
class Config(StudyConfig):
    """The chains, the model, and what every method may spend.

    Attributes:
        counts: Training sequences of the chains; the first chain is retained, all
            others are forgotten in one request.
        tests: Test sequences of each chain.
        length: Steps of every sequence.
        leakage: Probability that a chain leaves its own states.
        depth: Blocks of the transformer.
        width: Numbers at each position between blocks.
        recipe: Of training.
        methods: Names in ``CONTENDERS``.
        trials: Settings of each method, the first ones of its list.
        passes: Gradients that a method may spend, in passes over the forget set.
        budget: Rise of the retain loss that a setting may cost [nats per step].
        models: Seeds, of original and retrained models alike.
        seed: Draws chains and sequences.
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
    methods: tuple[str, ...] = SHOWN
    trials: int = 3
    passes: int = 10
    budget: float = 0.05
    models: int = 4
    seed: int = 0


RULES = (
    *at_least(
        1, "counts", "tests", "length", "depth", "width", "trials", "passes", "models"
    ),
    *at_least(0, "seed", "leakage"),
    *above(0, "budget"),
    *some("methods"),
    *one_of(CONTENDERS, "methods"),
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
