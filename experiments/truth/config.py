"""What to predict, and what to hold it against."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.frame.config import StudyConfig
from experiments.frame.problem import Data
from experiments.frame.rules import above, at_least, share


@dataclass(frozen=True)
class Config(StudyConfig):
    """What to predict, and what to hold it against.

    Attributes:
        data: Which data; a limit keeps the dense inverse affordable.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        leave_outs: Training examples to leave out, one by one (0: all).
        queries: Test examples whose loss is predicted.
        subsets: Models retrained on random subsets.
        share: Size of a subset, as a share of the training examples.
        bootstrap: Resamples for the standard errors.
        seed: Draws examples and subsets.
    """

    data: Data = field(default_factory=Data)
    l2: float = 0.01
    leave_outs: int = 500
    queries: int = 100
    subsets: int = 50
    share: float = 0.5
    bootstrap: int = 200
    seed: int = 0


RULES = (
    *above(0, "l2"),
    *share("share"),
    *at_least(0, "data.limit", "leave_outs", "bootstrap", "seed"),
    *at_least(3, "queries", "subsets"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data, limit=0 if data == "digits" else 1000))
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=400),
        leave_outs=100,
        queries=40,
        subsets=20,
    )
    paper = replace(small, scale="paper", leave_outs=0, queries=200)
    return {"small": small, "smoke": smoke, "paper": paper}
