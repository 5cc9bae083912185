"""Which requests come, and how each way of editing takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from experiments.canvas.config import GENERATOR_RULES, TINY, GeneratorConfig
from experiments.editing.ways import WAYS
from experiments.frame.rules import above, at_least, one_of, some


@dataclass(frozen=True, kw_only=True)
class Config(GeneratorConfig):
    """Which requests come, and how each way of editing takes them.

    Attributes:
        ways: Names in ``WAYS``.
        counts: Requests after which images are drawn.
        l2: λ of every edit.
        preserve_weight: Of each row of prompts that are kept.
        free: Directions of the embeddings that are least used by what is kept.
        samples: Images of each prompt that is kept, and of as many requests.
    """

    ways: tuple[str, ...] = tuple(WAYS)
    counts: tuple[int, ...] = (10, 50, 100)
    l2: float = 0.1
    preserve_weight: float = 0.1
    free: int = 12
    oracles: int = 0
    samples: int = 5


RULES = (
    *GENERATOR_RULES,
    *at_least(1, "counts", "samples", "free"),
    *above(0, "l2", "preserve_weight"),
    *some("ways", "counts"),
    *one_of(WAYS, "ways"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the images are drawn whatever the data's name."""
    del data
    small = Config()
    tiny = {**TINY, "oracles": 0}
    smoke = replace(small, **tiny, counts=(1, 3), free=4, samples=1)
    paper = replace(
        small,
        scale="paper",
        width=96,
        text_width=96,
        free=24,
        counts=(10, 50, 100, 500),
        samples=25,
        steps=50,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
