"""Which kind of generator, what is forgotten, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.canvas.config import adam
from experiments.frame.config import StudyConfig
from experiments.frame.rules import at_least, one_of
from experiments.generators.kinds import KINDS
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
    """Which kind of generator, what is forgotten, and by whom.

    Attributes:
        kind: Name in ``KINDS``.
        methods: Of that kind; none: all of them.
        target: The digit that is forgotten.
        anchor: The digit that takes its place, where a method asks for one.
        width: Hidden units of the generator.
        recipe: Of the generator's training.
        judge: Of the classifier's training.
        oracles: Generators that are retrained without the digit.
        samples: Images of each digit.
        shorter: Every method's steps are divided by this.
        most: Of the kind's methods only the first so many; 0: all.
        seed: Draws everything.
    """

    kind: str = "variational"
    methods: tuple[str, ...] = ()
    target: int = 3
    anchor: int = 8
    width: int = 256
    recipe: Recipe = field(default_factory=lambda: adam(150, 1e-3))
    judge: Recipe = field(default_factory=lambda: adam(60, 2e-3))
    oracles: int = 3
    samples: int = 50
    shorter: int = 1
    most: int = 0
    seed: int = 0


RULES = (
    *one_of(KINDS, "kind"),
    *at_least(1, "width", "samples", "shorter"),
    *at_least(0, "seed", "target", "anchor", "oracles", "most"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the images are digits whatever the data's name."""
    del data
    small = Config()
    smoke = replace(
        small,
        scale="smoke",
        width=16,
        recipe=adam(1, 2e-3),
        judge=adam(2, 2e-3),
        oracles=1,
        samples=2,
        shorter=1000,
        most=1,
    )
    paper = replace(small, scale="paper", width=512, samples=200, oracles=5)
    return {"small": small, "smoke": smoke, "paper": paper}
