"""Whose spectrum, and how closely it is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experiments.frame.config import StudyConfig
from experiments.frame.nets import NET_RULES
from experiments.frame.problem import Data
from experiments.frame.rules import at_least


@dataclass(frozen=True)
class Config(StudyConfig):
    """Whose spectrum, and how closely looked at.

    Attributes:
        data: Which data.
        net: "mlp", "cnn" or "linear".
        width: Hidden units; a quarter of it is the cnn's first channels.
        epochs: Steps of full-batch descent.
        l2: Coefficient of half the squared norm of the parameters, in training only:
            the spectrum is that of the mean loss, without l2.
        probes: Random vectors of the density.
        steps: Lanczos steps for each.
        outliers: Largest eigenvalues to find one by one.
        seed: Draws everything.
    """

    data: Data = field(default_factory=Data)
    net: Literal["mlp", "cnn", "linear"] = "mlp"
    width: int = 64
    epochs: int = 500
    l2: float = 1e-4
    probes: int = 10
    steps: int = 80
    outliers: int = 20
    seed: int = 0


RULES = (
    *NET_RULES,
    *at_least(0, "data.limit", "l2", "seed"),
    *at_least(2, "probes"),
    *at_least(1, "steps", "outliers"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    return {
        "small": Config(data=Data(name=data)),
        "smoke": Config(
            scale="smoke",
            data=Data(name=data, limit=400),
            width=16,
            epochs=200,
            probes=4,
            steps=40,
            outliers=15,
        ),
        "paper": Config(
            scale="paper",
            data=Data(name=data),
            width=256,
            epochs=2000,
            probes=20,
            steps=150,
        ),
    }
