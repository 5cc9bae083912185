"""What a datamodel study trains: its configuration, and the parts made from it."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.frame.problem import Data, Network, build_model, load
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles.plan import Plan, make_plan
from unlearn_jax.ensembles.train import Way
from unlearn_jax.parallel.launch import Where
from unlearn_jax.storage.plain import plain_config
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch


@dataclass(frozen=True)
class Config:
    """Which ensemble, and where it is trained.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: Which model.
        recipe: How every member is trained.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        members: Models that the datamodel is fitted to.
        held_out: Further models that judge it.
        share: Size of a member's subset, as a share of the training examples.
        queries: Test examples whose margin is regressed.
        seed: Draws subsets and members.
        how: Members of a piece as one program ("vmap"), one after another ("loop"), or
            the faster on this device ("auto").
        chunk: Members per program (0: what memory allows).
        where: "here", "local" (processes of this machine) or "slurm".
        workers: Processes or jobs (0: two processes, a job for each piece).
        slurm: Parameters of the jobs as "name=value", such as slurm_partition=short.
        results: Folder for runs; ensembles are kept under it for other runs too.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=lambda: Network(width=32, depth=1))
    recipe: Recipe = field(
        default_factory=lambda: Recipe(epochs=15, batch_size=64, weight_decay=0.0)
    )
    l2: float = 1e-3
    members: int = 1024
    held_out: int = 64
    share: float = 0.5
    queries: int = 100
    seed: int = 0
    how: Way = "auto"
    chunk: int = 0
    where: Where = "here"
    workers: int = 0
    slurm: tuple[str, ...] = ()
    results: Path = Path("results")


def presets(data: str) -> dict[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data))
    if data != "digits":
        small = replace(
            small,
            data=Data(name=data, limit=10_000),
            model=Network(width=64, depth=1),
            recipe=replace(small.recipe, epochs=5, batch_size=128),
            members=256,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=300),
        recipe=replace(small.recipe, epochs=5),
        members=48,
        held_out=16,
        queries=30,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        recipe=replace(small.recipe, epochs=20),
        members=10_000,
        held_out=100,
        queries=1000,
    )
    return {"small": small, "smoke": smoke, "paper": paper}


class Setting(NamedTuple):
    """Description: everything that is trained.

    Attributes:
        dataset: Its splits are data and points.
        learner: Shared by all members.
        points: Inputs of the training examples, then of the test examples.
        masks: (members + held_out, n) uint8.
        folder: Where the ensemble lies: the same for all numbers of members.
    """

    dataset: Dataset
    learner: Learner
    points: np.ndarray
    masks: np.ndarray
    folder: Path


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: names or numbers that make no sense.
    """
    dataset = load(config.data)
    train, test = dataset.splits
    if config.members < 16 or config.held_out < 3:
        raise ValueError(
            f"expected at least 16 members and 3 held-out members, got "
            f"{config.members} and {config.held_out}"
        )
    if not 3 <= config.queries <= len(test.targets):
        raise ValueError(
            f"queries is {config.queries}; expected 3 to {len(test.targets)}, the test "
            f"examples of {dataset.title}"
        )
    if round(config.share * len(train.targets)) >= len(train.targets):
        raise ValueError(
            f"share is {config.share}; members on all examples do not differ, choose "
            "it below 1"
        )
    model = build_model(config.model, dataset)
    masks = subset_masks(
        config.seed, config.members + config.held_out, len(train.targets), config.share
    )
    return Setting(
        dataset,
        Learner(model, cross_entropy, config.l2, config.recipe),
        np.concatenate([np.asarray(train.inputs), np.asarray(test.inputs)]),
        masks,
        Path(config.results) / "ensembles" / f"datamodels-{_digest(config)}",
    )


def remake(config: Config) -> tuple[Learner, Batch, np.ndarray, Plan]:
    """What another process trains: made again from the configuration."""
    setting = build(config)
    plan = make_plan(config.seed, setting.masks)
    return setting.learner, setting.dataset.splits.train, setting.points, plan


def slurm_options(config: Config) -> dict[str, Any]:
    """Parameters of the jobs; numbers are numbers.

    Raises:
        ValueError: a word without "=".
    """
    options: dict[str, Any] = {}
    for word in config.slurm:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(
                f"cannot read the SLURM parameter {word!r}; write name=value, such as "
                "timeout_min=60 or slurm_partition=short"
            )
        options[name] = int(value) if value.isdigit() else value
    return options


def _digest(config: Config) -> str:
    """Of what a member depends on; how many there are and where is left out."""
    data = {"name": config.data.name, "limit": config.data.limit}
    words = {
        "data": data,
        "model": plain_config(config.model),
        "recipe": plain_config(config.recipe),
        "l2": config.l2,
        "share": config.share,
        "seed": config.seed,
        "x64": bool(jax.config.read("jax_enable_x64")),
    }
    text = json.dumps(words, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
