"""What a tuning is asked, and its presets: a comparison's, and a budget."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.compare import config as compare
from experiments.compare import presets as compared
from experiments.frame.rules import Rule, at_least, share
from experiments.tune.grids import GRIDS

METHODS = tuple(GRIDS)
IMAGE_METHODS = (
    "finetune",
    "gradient_ascent",
    "random_labels",
    "ssd",
    "lfssd",
    "unrolled_removal",
    "bad_teacher",
    "scrub",
)
FIRST_SEED = 100
"""Of originals, oracles and forget sets: no table of another study comes so far."""


@dataclass(frozen=True)
class Config(compare.Config):
    """One tuning.

    Attributes:
        trials: Settings of each method to choose from: its published default, and as
            many of its grid as are left (count).
        margin: What retain and validation accuracy may lose (points).
        surrogates: Small oracles on each request (count).
        share: Of the retained examples that a small oracle learns from.
    """

    trials: int = 6
    margin: float = 1.0
    surrogates: int = 3
    share: float = 0.2


RULES: tuple[Rule, ...] = (
    *compare.RULES,
    *at_least(2, "trials"),
    *at_least(0.0, "margin"),
    *at_least(1, "surrogates"),
    *share("share"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale, of a data set; models and options as in ``compare``."""
    known = compared.presets(data)
    images = known["small"].model.name != "mlp"
    methods = IMAGE_METHODS if images else METHODS
    # Three passes over images learn little by heart: a class is what one can tell.
    requests = ("class:5",) if images else ("random:0.1", "class:5")
    common = {"methods": methods, "requests": requests}
    small = known["small"]
    limit = 10000 if images else 0
    return {
        "small": _over(
            small,
            **common,
            data=dataclasses.replace(small.data, limit=limit),
            seeds=compare.Seeds(2 if images else 3, first=FIRST_SEED),
            oracles=6 if images else 8,
            trials=4 if images else 6,
        ),
        "smoke": _over(
            known["smoke"],
            methods=("gradient_ascent", "ssd"),
            requests=requests[-1:],
            seeds=compare.Seeds(2, first=FIRST_SEED),
            trials=3,
            surrogates=1,
        ),
        "paper": _over(
            known["paper"],
            **common,
            seeds=compare.Seeds(10, first=FIRST_SEED),
            oracles=20,
            trials=8,
        ),
    }


def _over(base: compare.Config, **changes: Any) -> Config:
    names = (field.name for field in dataclasses.fields(base))
    return Config(**{name: getattr(base, name) for name in names} | changes)
