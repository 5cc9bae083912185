"""What to learn, what to delete, and how the attackers work."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.frame.config import StudyConfig
from experiments.frame.problem import Data
from experiments.frame.rules import above, at_least, between, distinct, share, some
from unlearn_jax.models.random_features import LARGEST_WIDTH


@dataclass(frozen=True)
class Config(StudyConfig):
    """What to learn, what to delete, and how the attackers work.

    Attributes:
        data: Which data; pixels are the features.
        width: Random features of the state that is reconstructed from; at least
            twice the pixels, or images are not determined.
        deleted: Rows deleted at once (count), one reconstruction each.
        trials: Deletions of each size.
        starts: Rotations from which rows are separated.
        steps: Steps from each.
        ratios: Rows within for each random feature, one membership attack each.
        l2: Ridge, beside the sum over rows.
        epsilons: Privacy losses of two releases together, by size; empty: no noise.
        delta: Probability with which each may fail.
        noise_width: Random features of the state that gets noise.
        draws: Repetitions of each noise.
        seed: Draws kernels, rows and noise.
    """

    data: Data = field(default_factory=Data)
    width: int = 256
    deleted: tuple[int, ...] = (1, 2, 4, 8, 16)
    trials: int = 4
    starts: int = 16
    steps: int = 500
    ratios: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    l2: float = 0.1
    epsilons: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 64.0)
    delta: float = 1e-5
    noise_width: int = 256
    draws: int = 5
    seed: int = 0


RULES = (
    *at_least(0, "data.limit", "seed"),
    *between(1, LARGEST_WIDTH, "width", "noise_width"),
    *some("deleted", "ratios"),
    *distinct("epsilons"),
    *at_least(1, "deleted", "trials", "starts", "steps", "draws"),
    *above(0, "ratios", "l2", "epsilons"),
    *share("delta"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data))
    if data != "digits":
        small = replace(
            small,
            data=Data(name=data, limit=6000),
            width=1792,
            deleted=(1, 4, 16),
            trials=2,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=600),
        width=192,
        deleted=(1, 4),
        trials=2,
        starts=4,
        steps=300,
        ratios=(1.0, 4.0),
        epsilons=(8.0,),
        noise_width=192,
        draws=2,
    )
    paper = replace(small, scale="paper", trials=20, draws=20)
    return {"small": small, "smoke": smoke, "paper": paper}
