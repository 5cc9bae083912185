"""Data, model, learner: the only builder of problems, for every study."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.config import StudyConfig
from experiments.frame.rules import Rule, at_least, between, share
from unlearn_jax.data import DATASETS
from unlearn_jax.data.batch import Dataset, Splits, check, take
from unlearn_jax.evaluation.tasks import TASKS
from unlearn_jax.models import MODELS, Model
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch


@dataclass(frozen=True)
class Data:
    """Which data.

    Attributes:
        name: A name that ``python -m experiments.list`` shows.
        dir: Folder of prepared TensorFlow Datasets; None takes UNLEARN_DATA.
        limit: Use only the first so many training and test examples (0: all).
    """

    name: str = "digits"
    dir: Path | None = None
    limit: int = 0


@dataclass(frozen=True)
class Network:
    """Which model.

    Attributes:
        name: A name that ``python -m experiments.list`` shows.
        width: Units of each of the mlp's hidden layers, channels of the cnn's first
            convolution or of a resnet's first stage (0: the model's default).
        depth: Hidden layers of the mlp.
        bfloat16: Compute in bfloat16; parameters, optimiser and losses stay float32.
    """

    name: str = "mlp"
    width: int = 0
    depth: int = 2
    bfloat16: bool = False


@dataclass(frozen=True)
class TrainingConfig(StudyConfig):
    """What every study is asked that trains models of some data.

    Attributes:
        data: Which data.
        model: Which model.
        recipe: How every model is trained.
    """

    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class SubsetConfig(TrainingConfig):
    """The same where models of random subsets are read.

    Attributes:
        members: Models of random subsets.
        share: Size of a subset, as a share of the training examples.
        seed: Draws keys, subsets, and whatever else is drawn.
    """

    members: int = 256
    share: float = 0.5
    seed: int = 0


PROBLEM_RULES: tuple[Rule, ...] = (
    *at_least(0, "data.limit", "model.width"),
    # One layer after another is traced: a thousand take minutes to compile.
    *between(1, 1000, "model.depth"),
)
"""What every configuration with ``data`` and ``model`` must fulfil."""
SUBSET_RULES: tuple[Rule, ...] = (
    *PROBLEM_RULES,
    *at_least(4, "members"),
    *share("share"),
    *at_least(0, "seed"),
)
"""What a :class:`SubsetConfig` must fulfil."""


class Problem(NamedTuple):
    """Description: what is learned, by what, and how it is trained.

    Attributes:
        dataset: Checked, on the host.
        learner: Model, loss, l2 and recipe.
        train: Training examples, on the device.
        test: Test examples, on the device.
    """

    dataset: Dataset
    learner: Learner
    train: Batch
    test: Batch


def problem(
    data: Data,
    model: Network,
    recipe: Recipe,
    *,
    l2: float = 0.0,
    tasks: tuple[str, ...] = ("classification",),
) -> Problem:
    """Load, check, and build the learner of a configuration; trains nothing.

    Raises:
        ValueError: an unknown or absent data set or model, or data that do not fit.
    """
    dataset = load(data, tasks=tasks)
    loss = TASKS[dataset.task].loss
    learner = Learner(build_model(model, dataset), loss, l2, recipe)
    train, test = (
        Batch(*(jnp.asarray(part) for part in batch)) for batch in dataset.splits
    )
    return Problem(dataset, learner, train, test)


def load(data: Data, *, tasks: tuple[str, ...] = ("classification",)) -> Dataset:
    """The data set of a configuration, checked.

    Args:
        data: Which one.
        tasks: Which tasks the study can do.

    Raises:
        ValueError: unknown, absent, of another task, or unfit to learn from.
    """
    known = [name for name, source in DATASETS.items() if source.task in tasks]
    if data.name not in known:
        raise ValueError(
            f"there is no data set {data.name!r} for {' or '.join(tasks)}; choose from "
            f"{', '.join(known)}"
        )
    source = DATASETS[data.name]
    missing = source.missing(data.dir)
    if missing:
        raise ValueError(missing)
    dataset = limited(source.load(data.dir), data.limit)
    for part, batch in zip(("training", "test"), dataset.splits, strict=True):
        check(
            batch,
            task=dataset.task,
            classes=dataset.classes,
            name=f"{part} set of {dataset.title}",
        )
    return dataset


def limited(dataset: Dataset, limit: int) -> Dataset:
    """Only the first ``limit`` training and the first ``limit`` test examples (0: all).

    Raises:
        ValueError: negative, or more than there are training examples.
    """
    train, test = dataset.splits
    n = len(train.targets)
    if limit < 0 or limit > n:
        raise ValueError(
            f"data.limit is {limit}; {dataset.title} has {n} training examples (0: all)"
        )
    if not limit:
        return dataset
    left = min(limit, len(test.targets))
    finer, test_finer = dataset.subclasses, dataset.test_subclasses
    return dataset._replace(
        title=f"{dataset.title}, first {limit} + {left} examples",
        splits=Splits(take(train, range(limit)), take(test, range(left))),
        subclasses=None if finer is None else finer[:limit],
        test_subclasses=None if test_finer is None else test_finer[:left],
    )


def build_model(chosen: Network, dataset: Dataset, **options: Any) -> Model:
    """The model of a configuration, for one data set's shapes.

    Args:
        chosen: Which one.
        dataset: Whose inputs and outputs.
        options: Of the model's factory, over those of the configuration: ``dtype``.

    Raises:
        ValueError: an unknown model, or one that cannot be had so.
    """
    name = chosen.name
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join(MODELS)}")
    if chosen.bfloat16 and name == "linear":
        raise ValueError("the linear model computes in float32; drop bfloat16")
    if chosen.depth != Network.depth and name != "mlp":
        raise ValueError(f"{name} has no depth to choose; leave model.depth out")
    own: dict[str, Any] = {"compute_dtype": jnp.bfloat16} if chosen.bfloat16 else {}
    if name == "mlp" and (chosen.width or chosen.depth != Network.depth):
        own["widths"] = tuple(itertools.repeat(chosen.width or 128, chosen.depth))
    elif chosen.width and name in ("cnn", "resnet18"):
        own["width"] = chosen.width
    elif chosen.width and name == "resnet9":
        own["widths"] = tuple(times * chosen.width for times in (1, 2, 4, 2))
    elif chosen.width and name != "mlp":
        raise ValueError(f"{name} has no width to choose; set model.width to 0")
    shape = tuple(dataset.splits.train.inputs.shape[1:])
    return MODELS[name](shape, dataset.classes, **(own | options))


def seed_key(level: str, *numbers: int) -> jax.Array:
    """The random key of one repetition; levels never share a key."""
    levels = (
        "train",
        "oracle",
        "prepare",
        "unlearn",
        "evaluate",
        "relearn",
        "surrogate",
    )
    key = jax.random.key(levels.index(level))
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def data_digest(dataset: Dataset) -> str:
    """A digest that changes with the contents of a data set.

    Cost: every byte of the data once, about 1 GB/s.
    """
    arrays = {
        f"{part} {field}": np.asarray(getattr(batch, field))
        for part, batch in zip(("train", "test"), dataset.splits, strict=True)
        for field in batch._fields
    }
    finer = {"train": dataset.subclasses, "test": dataset.test_subclasses}
    arrays |= {f"{k} finer": np.asarray(v) for k, v in finer.items() if v is not None}
    return digest_arrays(b"", "data set", arrays).hex()
