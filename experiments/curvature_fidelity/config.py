"""What is compared, and how much work the approximations may do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.frame.config import StudyConfig
from experiments.frame.nets import NETS
from experiments.frame.problem import Data
from experiments.frame.requests import request_files
from experiments.frame.rules import above, at_least, one_of, some


@dataclass(frozen=True)
class Effort:
    """How much work the approximations may do.

    Attributes:
        probes: Random vectors of the estimated diagonals, few and many.
        samples: Labels drawn per example, few and many.
        steps: Solver steps, few and many.
        rank: Eigenvectors that are kept.
        rows: Per-example gradients in the Woodbury inverse.
    """

    probes: tuple[int, int] = (16, 128)
    samples: tuple[int, int] = (1, 16)
    steps: tuple[int, int] = (10, 100)
    rank: int = 30
    rows: int = 256


@dataclass(frozen=True)
class Config(StudyConfig):
    """What is compared.

    Attributes:
        data: Which data.
        nets: Any of "mlp", "cnn", "linear".
        width: Hidden units; a quarter of it is the cnn's first channels.
        epochs: Steps of full-batch descent.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        damping: Added to the curvature before it is inverted.
        request: Forget set; ``python -m experiments.list requests`` shows how.
        vectors: Gradients that products and inverses are tried on: that of the forget
            set, then of random groups of its size.
        effort: How much work the approximations may do.
        seed: Draws the start of training and everything else.
    """

    data: Data = field(default_factory=Data)
    nets: tuple[Literal["mlp", "cnn", "linear"], ...] = ("mlp", "cnn")
    width: int = 16
    epochs: int = 2000
    l2: float = 5e-3
    damping: float = 1e-2
    request: str = "random:72"
    vectors: int = 5
    effort: Effort = field(default_factory=Effort)
    seed: int = 0


RULES = (
    *some("nets"),
    *one_of(NETS, "nets"),
    *at_least(1, "width", "epochs", "vectors"),
    *at_least(0, "data.limit", "l2", "seed"),
    *above(0, "damping"),
    *at_least(2, "effort.probes"),
    *at_least(1, *(f"effort.{name}" for name in ("samples", "steps", "rank", "rows"))),
)


def files(config: Config) -> Iterable[Path]:
    """Forget sets that the configuration only names."""
    return request_files((config.request,))


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    return {
        "small": Config(data=Data(name=data)),
        "smoke": Config(
            scale="smoke",
            data=Data(name=data, limit=400),
            nets=("mlp",),
            width=8,
            epochs=1000,
            request="random:20",
            vectors=3,
            effort=Effort((64, 64), (4, 4), (50, 50), 20, 128),
        ),
        "paper": Config(
            scale="paper", data=Data(name=data), width=32, epochs=4000, vectors=20
        ),
    }
