"""Which sizes are timed."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.frame.config import StudyConfig
from experiments.frame.rules import Rule, at_least

BESIDE = ("examples", "widths")


@dataclass(frozen=True)
class Config(StudyConfig):
    """Which sizes.

    Attributes:
        examples: Numbers of examples, at the middle width.
        widths: Units of the mlp's two hidden layers, at the middle number of examples.
        batch_size: Examples held at once.
        seed: Draws inputs and parameters; both are random, since only time counts.
    """

    examples: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batch_size: int = 256
    seed: int = 0


def _several(sizes: tuple[int, ...]) -> bool:
    return len(set(sizes)) > 1


RULES = (
    *at_least(1, *BESIDE, "batch_size"),
    *at_least(0, "seed"),
    *(Rule(n, _several, "two different sizes for a slope", whole=True) for n in BESIDE),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the data are random whatever their name."""
    del data
    return {
        "small": Config(),
        "smoke": Config(
            scale="smoke",
            examples=(512, 1024, 2048),
            widths=(32, 64, 128),
            batch_size=128,
        ),
        "paper": Config(
            scale="paper",
            examples=(1024, 4096, 16384, 65536, 262144),
            widths=(128, 256, 512, 1024, 2048, 4096),
        ),
    }
