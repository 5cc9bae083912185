"""What attributions are held against: data, learner, queries, and who competes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.frame.options import hyperparameters, read_option
from experiments.frame.problem import Data, Network, problem
from unlearn_jax.attribution import ATTRIBUTIONS, Attribution
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch

COSTLY = ("influence", "metagradient")
"""Attributions that solve, or train again, for every query."""


@dataclass(frozen=True)
class Config:
    """Who predicts, from what, and how the truth is made.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: Which model.
        recipe: How every model is trained.
        attributions: Names in ATTRIBUTIONS, with hyper-parameters after a colon:
            "trak:width=512,kernel=newton".
        removals: Those of them whose strongest supporters are taken out.
        models: Models of all examples. What reads models is asked with one and with
            all of them.
        checkpoints: Kept of each of their runs.
        members: Models of random subsets. What reads those is asked with a quarter and
            with all of them.
        share: Size of a subset, as a share of the training examples.
        subsets: New random subsets that the truth is retrained on.
        retrainings: Of each subset, with other seeds.
        queries: Test examples whose margins are predicted.
        costly_models: Models for what solves, or trains again, for every query and
            model: influence and metagradient.
        exact_queries: Queries for the metagradient, which trains again for each of
            them (0: left out).
        removal_queries: Queries whose supporters are taken out (0: none).
        removed: Supporters taken out of the training set for each.
        removal_retrainings: Models retrained without them.
        bootstrap: Resamples for the standard errors.
        seed: Draws queries, subsets and keys.
        results: Folder for runs; trained ensembles are kept there too.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    recipe: Recipe = field(default_factory=Recipe)
    attributions: tuple[str, ...] = tuple(ATTRIBUTIONS)
    removals: tuple[str, ...] = ("ekfac_influence", "trak", "datamodel")
    models: int = 10
    checkpoints: int = 6
    members: int = 256
    share: float = 0.5
    subsets: int = 50
    retrainings: int = 4
    queries: int = 100
    costly_models: int = 1
    exact_queries: int = 0
    removal_queries: int = 10
    removed: int = 20
    removal_retrainings: int = 5
    bootstrap: int = 200
    seed: int = 0
    results: Path = Path("results")


class Competitor(NamedTuple):
    """Description: one attribution with its hyper-parameters.

    Attributes:
        label: As on the command line.
        made: The attribution.
        reads: Fields of ``Evidence`` that it reads.
        counts: With how many models, or members, it is asked; empty if it is not.
        queries: How many.
    """

    label: str
    made: Attribution
    reads: tuple[str, ...]
    counts: tuple[int, ...]
    queries: int

    @property
    def from_members(self) -> bool:
        """Whether it reads models of subsets."""
        return "ensemble" in self.reads


class Setting(NamedTuple):
    """Description: what is loaded and checked before anything is trained.

    Attributes:
        config: As asked.
        dataset: As loaded.
        learner: Model, loss and recipe.
        train: On the device.
        test: On the device.
        asked: (q,) indices of the queries in the test set.
        queries: The examples at ``asked``.
        competitors: In the order of the configuration.
    """

    config: Config
    dataset: Dataset
    learner: Learner
    train: Batch
    test: Batch
    asked: np.ndarray
    queries: Batch
    competitors: list[Competitor]


def presets(data: str, model: str) -> dict[str, Config]:
    """Configurations by scale."""
    small = Config(
        data=Data(name=data, limit=0 if data == "digits" else 2000),
        model=Network(name=model, width=64),
        recipe=Recipe(epochs=30, batch_size=64, learning_rate=0.1),
        exact_queries=20,
    )
    if model == "cnn":
        small = replace(
            small,
            model=Network(name=model, width=8),
            recipe=Recipe(epochs=15, batch_size=64, learning_rate=0.05),
            exact_queries=0,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=replace(small.data, limit=400),
        recipe=replace(small.recipe, epochs=6),
        attributions=("ekfac_influence", "tracin", "datamodel"),
        removals=("datamodel",),
        models=1,
        checkpoints=3,
        members=16,
        subsets=8,
        retrainings=2,
        queries=20,
        exact_queries=0,
        removal_queries=2,
        removal_retrainings=2,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data, limit=0 if data == "digits" else 5000),
        models=50,
        members=2000,
        subsets=100,
        retrainings=10,
        queries=300,
        removal_queries=50,
        removal_retrainings=10,
    )
    return {"small": small, "smoke": smoke, "paper": paper}


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: unknown names, absent data, numbers that make no sense.
    """
    for label in config.attributions:
        read_label(label)
    _check_counts(config)
    dataset, learner, train, test = problem(config.data, config.model, config.recipe)
    tests, n = len(test.targets), len(train.targets)
    if config.queries > tests or config.removed >= n:
        raise ValueError(
            f"{dataset.title} has {n} training and {tests} test examples here; "
            f"{config.queries} queries or {config.removed} removed are too many"
        )
    random = np.random.default_rng(config.seed)
    asked = np.sort(random.permutation(tests)[: config.queries])
    competitors = [_competitor(config, learner, each) for each in config.attributions]
    return Setting(
        config, dataset, learner, train, test, asked, take(test, asked), competitors
    )


def read_label(label: str) -> tuple[str, dict[str, Any]]:
    """An attribution's name and hyper-parameters.

    Raises:
        ValueError: no such attribution or hyper-parameter, or a wrong value.
    """
    name, colon, rest = label.partition(":")
    if name not in ATTRIBUTIONS:
        raise ValueError(
            f"there is no attribution {name!r}; choose from {', '.join(ATTRIBUTIONS)}"
        )
    known = hyperparameters(ATTRIBUTIONS[name].factory)
    options: dict[str, Any] = {}
    for text in rest.split(",") if colon else ():
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise ValueError(
                f"cannot read {text!r} in {label!r}; write {name}:option=value with "
                f"one of {', '.join(known)}"
            )
        options[key] = read_option(text, value, known[key].default)
    return name, options


def _check_counts(config: Config) -> None:
    least = {
        "models": 1,
        "members": 4,
        "subsets": 3,
        "retrainings": 2,
        "queries": 3,
        "costly_models": 1,
        "exact_queries": 0,
        "removal_queries": 0,
        "removed": 1,
        "removal_retrainings": 2,
    }
    for name, fewest in least.items():
        given = getattr(config, name)
        if given < fewest:
            raise ValueError(f"{name} is {given}; expected at least {fewest}")
    if config.costly_models > config.models:
        raise ValueError(
            f"costly_models is {config.costly_models}, of {config.models} models"
        )
    if max(config.exact_queries, config.removal_queries) > config.queries:
        raise ValueError(
            f"exact_queries and removal_queries are at most the {config.queries} "
            f"queries, got {config.exact_queries} and {config.removal_queries}"
        )
    if not 0 < config.share < 1:
        raise ValueError(f"share is {config.share}; expected 0 < share < 1")
    if not config.attributions:
        raise ValueError("give at least one attribution")
    unknown = set(config.removals) - set(config.attributions)
    if config.removal_queries and unknown:
        raise ValueError(
            f"removals {', '.join(sorted(unknown))} are not among the attributions "
            f"{', '.join(config.attributions)}; add them, or set removal_queries to 0"
        )


def _competitor(config: Config, learner: Learner, label: str) -> Competitor:
    name, options = read_label(label)
    factory: Callable[..., Attribution] = ATTRIBUTIONS[name].factory
    reads = ATTRIBUTIONS[name].reads
    queries = config.exact_queries if name == "metagradient" else config.queries
    if name in COSTLY:
        counts = (config.costly_models,) if queries else ()
    elif "ensemble" in reads:
        counts = (config.members // 4, config.members)
    else:
        counts = (1, config.models) if config.models > 1 else (1,)
    attribution = factory(as_trained(learner), **options)
    return Competitor(label, attribution, reads, counts, queries)
