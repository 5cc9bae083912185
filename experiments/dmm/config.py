"""Which models, which forget sets, and who competes with which settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from experiments.frame.options import Options, words_of
from experiments.frame.problem import SUBSET_RULES, Data, Network, SubsetConfig
from experiments.frame.requests import request_files
from experiments.frame.rules import Rule, at_least, distinct, one_of, some
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.methods import METHODS
from unlearn_jax.train.recipe import Recipe

FACTORIES = {
    name: entry.factory
    for table in (METHODS, ATTRIBUTIONS)
    for name, entry in table.items()
}

# The published values are the first ones where a small net moves at all under them.
# TRAK as published fixes the order of scores, not their scale; with the Gauss-Newton
# matrix in place of its kernel they are changes of outputs.
BASELINES = ("finetune", "gradient_ascent", "scrub", "ssd")
RESPONSE = "unrolled_response"
"""What ``unrolled_removal`` begins with, as an attribution: it reads a trace."""

_VALUES = {
    "finetune": {"epochs": (1, 3), "learning_rate": (0.01, 0.1), "batch_size": (128,)},
    "gradient_ascent": {
        "epochs": (1, 5, 50),
        "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2),
        "batch_size": (64,),
    },
    "scrub": {
        "epochs": (3,),
        "ascent_epochs": (2,),
        "learning_rate": (5e-4, 5e-3, 5e-2),
        "forget_batch": (32,),
    },
    "ssd": {"alpha": (5.0, 10.0, 50.0)},
    "trak": {"kernel": ("outputs",), "width": (1024,), "damping": (1e-2,)},
}
OPTIONS = Options(_VALUES)


@dataclass(frozen=True)
class Matching:
    """One setting of the fine-tune towards outputs; see ``methods/matching.py``."""

    epochs: int = 4
    learning_rate: float = 1e-4
    batch_size: int = 512
    retain_ratio: int = 20
    forget_copies: int = 5


# As published for a ResNet-9, as the released function defaults to, faster; the last
# one fine-tunes on 2,500 examples for a hundred forgotten ones.
MATCHING = (
    Matching(),
    Matching(learning_rate=5e-4),
    Matching(learning_rate=2e-3),
    Matching(epochs=1, learning_rate=5e-4),
)


@dataclass(frozen=True)
class Config(SubsetConfig):
    """Which models, which forget sets, and who competes.

    Attributes:
        requests: Forget sets, as ``python -m experiments.list requests`` shows them.
            The first one chooses everybody's setting.
        methods: Names that ``python -m experiments.list`` shows.
        attributions: Those that predict the oracle, for DMM: names in ATTRIBUTIONS, and
            "unrolled_response", from a trace of each original's own training.
        options: Hyper-parameters of methods and attributions, "ssd.alpha=5,10": each
            combination of the values of a method is tried, an attribution takes one.
        matching: Settings of the fine-tune towards predicted or true oracles' outputs.
        originals: Models that are unlearned, and oracles they are compared with.
        models: Originals that an attribution averages over.
        points: Retained and test examples that KLoM is measured on, each.
        settings: Most settings of a method that are tried (0: all).
        one_original: Unlearn the first original with as many keys, as the challenge of
            NeurIPS 2023 does, instead of each original by itself.
    """

    requests: tuple[str, ...] = ("random:100",)
    methods: tuple[str, ...] = (*BASELINES, "unrolled_removal")
    attributions: tuple[str, ...] = ("ekfac_influence", "trak", "datamodel", RESPONSE)
    options: Annotated[Options, words_of(FACTORIES, several=True)] = OPTIONS
    matching: tuple[Matching, ...] = MATCHING
    originals: int = 64
    models: int = 5
    points: int = 1000
    settings: int = 0
    one_original: bool = False


RULES: tuple[Rule, ...] = (
    *SUBSET_RULES,
    *at_least(4, "originals"),
    *at_least(1, "models", "points"),
    *at_least(0, "settings"),
    *one_of(METHODS, "methods"),
    *one_of((*ATTRIBUTIONS, RESPONSE), "attributions"),
    *some("requests", "methods", "matching"),
    *distinct("attributions"),
)


def files(config: Config) -> list[Path]:
    """Files that requests name."""
    return request_files(config.requests)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(
        data=Data(name=data),
        model=Network(name="mlp", width=64),
        recipe=Recipe(epochs=30, batch_size=64, learning_rate=0.1),
        requests=("random:50", "clustered:50", "clustered:3:50"),
        originals=32,
        members=128,
        points=400,
    )
    if data != "digits":
        small = replace(
            small,
            data=Data(name=data, limit=10_000),
            recipe=Recipe(epochs=25, batch_size=128, learning_rate=0.1),
            requests=tuple(
                "random:100 clustered:6:100 clustered:250 gradients:100".split()
            ),
            # A datamodel asks hundreds of members for every prediction.
            attributions=("ekfac_influence", "trak", RESPONSE),
            originals=64,
            members=256,
            points=2000,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=replace(small.data, limit=400),
        recipe=replace(small.recipe, epochs=5),
        requests=("random:20", "clustered:20"),
        methods=BASELINES,
        attributions=("ekfac_influence",),
        originals=4,
        models=2,
        members=8,
        points=50,
        settings=1,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        model=Network(name="mlp" if data == "digits" else "resnet9"),
        originals=100,
        members=1000,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
