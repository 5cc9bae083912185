"""The rows, the requests, and how often they are looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments.frame.backbone import BACKBONES
from experiments.frame.config import StudyConfig
from experiments.frame.problem import PROBLEM_RULES, Data, Network
from experiments.frame.rules import above, at_least, distinct, one_of, some
from unlearn_jax.train.recipe import Recipe

PIXELS = "pixels"


@dataclass(frozen=True)
class Config(StudyConfig):
    """The rows, the requests, and how often they are looked at.

    Attributes:
        data: Which data.
        model: The backbone whose last hidden layer is frozen; "pixels": none.
        backbone: How it is trained, on all training rows.
        width: Random features, at most 16,384.
        l2s: Ridges, beside the sum over rows; the sums serve all of them.
        single_l2s: Ridges that float32 is tried with.
        requests: Requests in a row.
        most: Most rows of one that is not for a class.
        tested: Test rows that are predicted.
        watch: Compare the carried forms with the sums each so many requests.
        checks: Compare all with the reference so often, at equal distances, and at
            the start.
        kept_last: The last requests that sums and inverse, kept together, follow.
        single_last: The last requests that float32 follows.
        seed: Draws requests, backbone and random features.
    """

    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=lambda: Network(name="cnn"))
    backbone: Recipe = field(
        default_factory=lambda: Recipe(epochs=8, batch_size=64, learning_rate=0.05)
    )
    width: int = 512
    l2s: tuple[float, ...] = (1.0, 1e-3, 1e-6)
    single_l2s: tuple[float, ...] = (1e4, 100.0, 1.0, 1e-3, 1e-6)
    requests: int = 300
    most: int = 100
    tested: int = 300
    watch: int = 5
    checks: int = 4
    kept_last: int = 300
    single_last: int = 300
    seed: int = 0


RULES = (
    *PROBLEM_RULES,
    *one_of((PIXELS, *BACKBONES), "model.name"),
    *some("l2s"),
    *distinct("single_l2s"),
    *above(0, "l2s", "single_l2s"),
    *at_least(1, "requests", "watch", "checks", "tested"),
    *at_least(0, "kept_last", "single_last", "seed"),
)

PRESETS = {
    "small": Config(),
    "smoke": Config(
        scale="smoke",
        data=Data(limit=400),
        model=Network(name=PIXELS),
        width=64,
        requests=60,
        most=16,
        checks=2,
        kept_last=60,
        single_last=40,
    ),
    "paper": Config(
        scale="paper",
        data=Data(name="fashion_mnist", limit=20_000),
        backbone=Recipe(epochs=2, batch_size=128, learning_rate=0.05),
        width=2048,
        requests=1000,
        most=500,
        tested=1000,
        watch=20,
        checks=3,
        kept_last=100,
        single_last=100,
    ),
}


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; each names its own data."""
    del data
    return PRESETS
