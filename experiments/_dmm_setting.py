"""What a comparison by distributions works with: data, learner, points, forget sets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.frame.problem import Data, Network, problem
from experiments.frame.rules import check_rules, some
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.gradient_clusters import embeddings, gradient_features
from unlearn_jax.data.batch import Dataset, concatenate, take
from unlearn_jax.data.forget import class_set, random_set
from unlearn_jax.data.hard_sets import clustered_set
from unlearn_jax.methods.datamodel_matching import READABLE
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables

BASELINES = ("finetune", "gradient_ascent", "scrub", "ssd")
KINDS = "random:100, class:3, clustered:100, clustered:6:100 or gradients:100"


@dataclass(frozen=True)
class Config:
    """Which models, which forget sets, and who competes.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: Which model.
        recipe: How every model is trained.
        requests: Forget sets: "random:100", "class:3", "clustered:100" (furthest along
            the principal direction of the embeddings), "clustered:6:100" (within class
            6), "gradients:100" (of the gradients). The first one chooses everybody's
            hyper-parameters.
        attributions: Names in ATTRIBUTIONS that predict the oracle.
        originals: Models that are unlearned, and oracles they are compared with.
        models: Originals that an attribution averages over.
        members: Models of random subsets, for attributions that read an ensemble.
        share: Size of a subset, as a share of the training examples.
        points: Retained and test examples that KLoM is measured on, each.
        settings: Most hyper-parameter settings of a method (0: its whole grid).
        seed: Draws forget sets, points and keys.
        results: Folder for runs; trained ensembles are kept there too.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    recipe: Recipe = field(default_factory=Recipe)
    requests: tuple[str, ...] = ("random:100",)
    attributions: tuple[str, ...] = ("ekfac_influence", "trak", "datamodel")
    originals: int = 64
    models: int = 5
    members: int = 256
    share: float = 0.5
    points: int = 1000
    settings: int = 0
    seed: int = 0
    results: Path = Path("results")


class Setting(NamedTuple):
    """Description: what is loaded and checked before anything is trained."""

    config: Config
    dataset: Dataset
    learner: Learner
    train: Batch
    test: Batch


class Points(NamedTuple):
    """Value: the examples that one request is judged on.

    Attributes:
        batch: Forgotten, then retained, then test examples.
        split: (q,) "forget", "retain" or "validation" for each.
    """

    batch: Batch
    split: np.ndarray


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: unknown names, absent data, numbers that make no sense.
    """
    if config.originals < 4 or not 1 <= config.models <= config.originals:
        raise ValueError(
            f"expected at least 4 originals, and 1 to {config.originals} models for "
            f"the attributions, got {config.originals} and {config.models}"
        )
    if config.points < 1 or config.settings < 0 or config.seed < 0:
        raise ValueError(
            f"expected points of at least 1, settings and seed of at least 0, got "
            f"{config.points}, {config.settings} and {config.seed}"
        )
    for name in config.attributions:
        if name not in ATTRIBUTIONS:
            raise ValueError(
                f"there is no attribution {name!r}; choose from "
                f"{', '.join(ATTRIBUTIONS)}"
            )
        if not set(ATTRIBUTIONS[name].reads) <= set(READABLE):
            raise ValueError(
                f"attribution {name!r} reads {ATTRIBUTIONS[name].reads}; here there "
                f"are trained models and an ensemble of subsets"
            )
    if not config.requests:
        raise ValueError(f"give at least one request: {KINDS}")
    check_rules(config, some("requests"))
    for text in config.requests:
        read_request(text)
    dataset, learner, train, test = problem(config.data, config.model, config.recipe)
    for text in config.requests:
        _check_size(text, np.asarray(dataset.splits.train.targets))
    if any("ensemble" in ATTRIBUTIONS[name].reads for name in config.attributions):
        _check_subsets(config, len(train.targets))
    return Setting(config, dataset, learner, train, test)


def _check_size(text: str, labels: np.ndarray) -> None:
    """Refuse a forget set that cannot be drawn, before anything is trained."""
    kind, numbers = read_request(text)
    if kind == "class":
        class_set(labels, numbers[0])
        return
    able, most = len(labels), len(labels) - 1
    if len(numbers) == 2:
        able = most = len(class_set(labels, numbers[0]))
    if not 1 <= numbers[-1] <= most:
        raise ValueError(
            f"request {text!r} asks for {numbers[-1]} of {able} training examples; "
            f"expected 1 to {most}"
        )


def _check_subsets(config: Config, n: int) -> None:
    size = round(config.share * n)
    if config.members < 2 or not 1 <= size < n:
        raise ValueError(
            f"subsets need at least 2 members and a share between 0 and 1, got "
            f"{config.members} and {config.share}: {size} of {n} examples"
        )


def read_request(text: str) -> tuple[str, list[int]]:
    """The kind of a request and its numbers.

    Raises:
        ValueError: not one of the kinds.
    """
    kind, *numbers = text.split(":")
    lengths = {"random": (1,), "class": (1,), "clustered": (1, 2), "gradients": (1,)}
    if len(numbers) not in lengths.get(kind, ()) or not all(
        number.isdigit() for number in numbers
    ):
        raise ValueError(f"cannot read the request {text!r}; write {KINDS}")
    return kind, [int(number) for number in numbers]


def forget_set(setting: Setting, original: Variables, text: str) -> np.ndarray:
    """Indices of one forget set; clusters are those of ``original``."""
    kind, numbers = read_request(text)
    n = len(setting.train.targets)
    labels = np.asarray(setting.train.targets)
    if kind == "random":
        return random_set(setting.config.seed, n, numbers[0])
    if kind == "class":
        return class_set(labels, numbers[0])
    if kind == "clustered":
        features = np.asarray(
            embeddings(setting.learner.model, original, setting.train)
        )
        chosen: dict[str, Any] = {}
        if len(numbers) == 2:
            chosen = {"labels": labels, "label": numbers[0]}
        return clustered_set(features, numbers[-1], **chosen)
    objective = bind(setting.learner.model, original.stats, setting.learner.loss)
    features = jax.jit(
        lambda key, params, data: gradient_features(key, objective, params, data)
    )(jax.random.key(setting.config.seed), original.params, setting.train)
    return clustered_set(np.asarray(features), numbers[0])


def points_of(setting: Setting, forget: np.ndarray) -> Points:
    """The forget set, and a sample of the others, drawn once."""
    config = setting.config
    random = np.random.default_rng(config.seed)
    kept = np.setdiff1d(np.arange(len(setting.train.targets)), forget)
    retained = np.sort(random.permutation(kept)[: config.points])
    tests = len(setting.test.targets)
    unseen = np.sort(random.permutation(tests)[: config.points])
    lost, held = (take(setting.train, part) for part in (forget, retained))
    batch = concatenate(concatenate(lost, held), take(setting.test, unseen))
    split = np.repeat(
        ["forget", "retain", "validation"], [len(forget), len(retained), len(unseen)]
    )
    return Points(batch, split)
