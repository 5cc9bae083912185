"""The stream, the backbone, and the heads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from experiments.continual.neighbours import NEIGHBOUR_FACTORIES
from experiments.continual.sgd import SGD_FACTORIES
from experiments.frame.backbone import BACKBONES
from experiments.frame.config import StudyConfig
from experiments.frame.options import Options, words_of
from experiments.frame.problem import PROBLEM_RULES, Data, Network
from experiments.frame.rules import at_least, one_of
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True)
class Config(StudyConfig):
    """The stream, the backbone, and the heads.

    Attributes:
        data: Which data.
        model: The backbone; its last hidden layer gives the frozen features.
        backbone: How it is trained on the first half of the classes.
        head: How heads are trained by gradients; half the epochs when rows come in.
        options: Hyper-parameters of their methods as "method.name=value".
        width: Random features of the ridge heads, at most 16,384.
        l2: Their ridge, beside the sum over rows.
        phases: Learning phases after the base, which share the other classes.
        rounds: How often each kind of request comes.
        rows: Rows of a request for rows.
        users: Every row belongs to one of so many.
        judged: At most so many retained and forgotten rows are looked at.
        history: Compare the state with one without history after "each" event, or
            after the "last" only, which is cheaper.
        seed: Draws the stream, the backbone and the random features.
    """

    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    backbone: Recipe = field(default_factory=Recipe)
    head: Recipe = field(default_factory=Recipe)
    options: Annotated[Options, words_of({**SGD_FACTORIES, **NEIGHBOUR_FACTORIES})] = (
        field(default_factory=Options)
    )
    width: int = 512
    l2: float = 0.1
    phases: int = 2
    rounds: int = 1
    rows: int = 30
    users: int = 40
    judged: int = 500
    history: Literal["each", "last"] = "last"
    seed: int = 0


RULES = (
    *PROBLEM_RULES,
    *one_of(BACKBONES, "model.name"),
    *at_least(2, "judged"),
    *at_least(0, "seed"),
)

_OPTIONS = Options(
    {
        "finetune": {"epochs": 2, "learning_rate": 0.02, "batch_size": 128},
        "ssd": {"alpha": 10.0},
        "sequential": {"learning_rate": 0.02, "batch_size": 128},
        "ewc": {"learning_rate": 0.02, "batch_size": 128},
        "fisher_merging": {"learning_rate": 0.02, "batch_size": 128},
        "refresh_learning": {"batch_size": 128},
    }
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(
        data=Data(name=data),
        model=Network(name="cnn"),
        backbone=Recipe(epochs=15, batch_size=64, learning_rate=0.05),
        head=Recipe(epochs=10, batch_size=64, learning_rate=0.05),
        options=_OPTIONS,
    )
    if data in ("fashion_mnist", "fashion_mnist_coarse", "cifar10"):
        colour = data == "cifar10"
        small = replace(
            small,
            data=Data(name=data, limit=30_000),
            model=Network(name="resnet9" if colour else "cnn"),
            backbone=Recipe(
                epochs=8 if colour else 3,
                batch_size=128,
                learning_rate=0.1 if colour else 0.05,
                augment="flip_crop" if colour else "none",
            ),
            head=Recipe(epochs=4, batch_size=128, learning_rate=0.02),
            width=2048,
            phases=3,
            rounds=2,
            rows=100,
            users=200,
            judged=1000,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=400),
        model=Network(name="mlp", width=48),
        backbone=Recipe(epochs=5, batch_size=64, learning_rate=0.05),
        head=Recipe(epochs=4, batch_size=64, learning_rate=0.05),
        width=256,
        phases=1,
        rounds=1,
        rows=12,
        users=30,
        judged=100,
        history="each",
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        model=Network(name="resnet18"),
        backbone=Recipe(
            epochs=160,
            batch_size=128,
            learning_rate=0.1,
            augment="flip_crop" if data == "cifar10" else "none",
        ),
        head=Recipe(epochs=20, batch_size=128, learning_rate=0.02),
        width=8192,
        phases=5,
        rounds=4,
        rows=500,
        users=500,
        judged=5000,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
