"""From a configuration to data, learner and requests; every refusal happens here."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._config import Config, check_once, parse_options, parse_request
from unlearn_jax.data import DATASETS
from unlearn_jax.data.batch import Dataset, Splits, check, take
from unlearn_jax.data.forget import draw
from unlearn_jax.data.hard_sets import HARD_KINDS, draw_hard
from unlearn_jax.methods import METHODS, Method, Request, check_task, make_request
from unlearn_jax.models import MODELS, Model
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


class Asked(NamedTuple):
    """One request, ready: its name, its batches, and the test examples that fit it.

    Attributes:
        name: As on the command line, "class:3".
        request: Forget and retain batches.
        forget: Indices of the forgotten training examples.
        test: Mask over the test set: distributed like the retained examples.
        unseen: Mask over the test set: distributed like the forgotten ones.
    """

    name: str
    request: Request
    forget: np.ndarray
    test: np.ndarray
    unseen: np.ndarray


class Setting(NamedTuple):
    """Everything an experiment works with; made once, before anything is trained."""

    config: Config
    dataset: Dataset
    learner: Learner
    train: Batch
    asked: list[Asked]
    methods: dict[str, Method]


def build(config: Config) -> Setting:
    """Load, check and refuse: what this returns can be run.

    Raises:
        ValueError: a name that does not exist, data that is not there or unfit, a
            method that cannot do the task, a request that makes no sense.
    """
    tables = (
        ("data set", config.data.name, DATASETS),
        ("model", config.model.name, MODELS),
    )
    for what, name, table in tables:
        if name not in table:
            raise ValueError(
                f"there is no {what} {name!r}; choose from {', '.join(table)}"
            )
    source = DATASETS[config.data.name]
    for name in config.methods:
        check_task(name, source.task)
    options = parse_options(config.options, config.methods)
    _check_counts(config)
    missing = source.missing(config.data.dir)
    if missing:
        raise ValueError(missing)
    dataset = limited(source.load(config.data.dir), config.data.limit)
    for part, batch in zip(("training", "test"), dataset.splits, strict=True):
        check(
            batch,
            task=dataset.task,
            classes=dataset.classes,
            name=f"{part} set of {dataset.title}",
        )
    model = build_model(config, dataset)
    loss = cross_entropy if dataset.task == "classification" else squared_error
    learner = Learner(model, loss, config.l2, config.recipe)
    train = Batch(*(jnp.asarray(field) for field in dataset.splits.train))
    asked = [ask(text, dataset, train) for text in config.requests]
    names = dict.fromkeys(("identity", *config.methods))
    methods = {
        name: METHODS[name].factory(learner, **options.get(name, {})) for name in names
    }
    return Setting(config, dataset, learner, train, asked, methods)


def build_model(config: Config, dataset: Dataset) -> Model:
    """The model of a configuration, for one data set's shapes."""
    chosen = config.model
    check_whole("model.width", chosen.width, least=0)
    options: dict[str, Any] = {}
    if chosen.bfloat16 and chosen.name == "linear":
        raise ValueError("the linear model computes in float32; drop bfloat16")
    if chosen.bfloat16:
        options["compute_dtype"] = jnp.bfloat16
    if chosen.width and chosen.name == "mlp":
        options["widths"] = (chosen.width, chosen.width)
    elif chosen.width and chosen.name in ("cnn", "resnet18"):
        options["width"] = chosen.width
    elif chosen.width:
        raise ValueError(f"{chosen.name} has no width to choose; set model.width to 0")
    shape = dataset.splits.train.inputs.shape[1:]
    return MODELS[chosen.name](tuple(shape), dataset.classes, **options)


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


def ask(text: str, dataset: Dataset, train: Batch) -> Asked:
    """Draw a forget set and find the test examples distributed like it."""
    words = parse_request(text)
    hard = words["kind"] in HARD_KINDS
    forget = draw_hard(dataset, **words) if hard else draw(dataset, seed=0, **words)
    count = len(dataset.splits.test.targets)
    everything = np.ones(count, bool)
    test, unseen = everything, everything
    if words["kind"] in ("class", "sub_class"):
        finer = (
            dataset.splits.test.targets
            if words["kind"] == "class"
            else dataset.test_subclasses
        )
        unseen = np.asarray(finer) == words["label"]
        test = ~unseen
        if not unseen.any():
            raise ValueError(
                f"request {text!r}: no test example has label {words['label']}, so no "
                f"non-member to compare with; choose another label"
            )
    return Asked(text, make_request(train, forget), forget, test, unseen)


def seed_key(level: str, *numbers: int) -> jax.Array:
    """The random key of one repetition; levels never share a key."""
    levels = ("train", "oracle", "prepare", "unlearn", "evaluate", "relearn")
    key = jax.random.key(levels.index(level))
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def _check_counts(config: Config) -> None:
    seeds = config.seeds
    check_number("l2", config.l2, least=0.0)
    check_whole("relearn_steps", config.relearn_steps)
    if min(seeds.train, seeds.unlearn, seeds.evaluate) < 1:
        raise ValueError(f"every level needs at least one seed, got {seeds}")
    if not config.requests or not config.methods:
        raise ValueError("give at least one request and one method")
    check_once("requests", config.requests)
    check_once("methods", config.methods)
    fewest = max(3, seeds.train)
    if config.oracles < fewest:
        raise ValueError(
            f"{config.oracles} oracles for {seeds.train} training seeds; give at least "
            f"{fewest}: one per seed, two for the floor and a third that attacks learn "
            f"from"
        )
