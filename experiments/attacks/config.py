"""Who is attacked, and how much each attack may try."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from experiments.canvas.config import GENERATOR_RULES, TINY, GeneratorConfig
from experiments.canvas.editors import EDITORS
from experiments.canvas.tuners import TUNERS
from experiments.frame.rules import above, at_least, between, one_of, some

_ATTACKED = (
    "uce",
    "uce: all rows",
    "uce: paraphrases",
    "null space",
    "rece",
    "rece: released",
    "trce: keeping all rows",
    "safree",
    "esd-x",
    "salun",
    "spm: merged",
    "advunlearn: closed form",
)


@dataclass(frozen=True, kw_only=True)
class Config(GeneratorConfig):
    """Who is attacked, and how much each attack may try.

    Attributes:
        methods: Names in ``EDITORS`` and ``TUNERS`` of the study ``canvas``.
        slots: Words before a prompt; all of them are tried.
        seeds: Pictures of each plain prompt that are attacked.
        rounds: Candidates that the searches come by, each one query of the judge.
        searches: Steps before each candidate.
        rate: Of the search among words.
        new_rate: Of the search for new words.
    """

    methods: tuple[str, ...] = _ATTACKED
    oracles: int = 2
    slots: int = 1
    seeds: int = 4
    rounds: int = 10
    searches: int = 20
    rate: float = 0.1
    new_rate: float = 0.05


RULES = (
    *GENERATOR_RULES,
    *at_least(1, "seeds", "rounds", "searches"),
    *between(1, 2, "slots"),
    *above(0, "rate", "new_rate"),
    *some("methods"),
    *one_of({**EDITORS, **TUNERS}, "methods"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the images are drawn whatever the data's name."""
    del data
    small = Config()
    smoke = replace(
        small, **TINY, methods=("uce", "safree"), seeds=1, rounds=2, searches=2
    )
    paper = replace(
        small,
        scale="paper",
        width=96,
        text_width=96,
        methods=tuple(EDITORS),
        oracles=3,
        slots=2,
        rounds=50,
        searches=40,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
