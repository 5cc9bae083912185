"""From a configuration to data, learner and requests; every refusal happens here."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.compare.config import Config, check_oracles, metric_of
from experiments.compare.contenders import Contender, contenders
from experiments.frame.plugins import short_name
from experiments.frame.problem import problem
from experiments.frame.requests import Asked, Features, check_request, draw_request
from unlearn_jax.data.batch import Dataset
from unlearn_jax.evaluation import METRICS, Metric
from unlearn_jax.evaluation.tasks import TASKS
from unlearn_jax.methods import METHODS, Entry, Method, Request, make_request
from unlearn_jax.train.exchange import check_format, read_variables
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables


class Setting(NamedTuple):
    """Everything a comparison works with; made once, before anything is trained."""

    config: Config
    dataset: Dataset
    learner: Learner
    train: Batch
    asked: list[Asked]
    contenders: list[Contender]
    methods: dict[str, Method]
    identity: Entry
    metrics: dict[str, Metric]
    given: tuple[Variables, ...] = ()


class Case(NamedTuple):
    """One request, drawn: its batches, and the test examples that fit it.

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


def build(
    config: Config,
    compete: Callable[[Config, str], list[Contender]] = contenders,
) -> Setting:
    """Load, check and refuse: what this returns can be run.

    Args:
        config: What is asked.
        compete: Who competes, given the configuration and the data's task.

    Raises:
        ValueError: a name that does not exist, data that is not there or unfit, a
            method that cannot do the task, a request that makes no sense.
    """
    check_oracles(config)
    dataset, learner, train, _ = problem(
        config.data,
        config.model,
        config.recipe,
        l2=config.l2,
        tasks=("classification", "regression"),
    )
    competing = compete(config, dataset.task)
    asked = [check_request(text, dataset) for text in config.requests]
    for words in asked:
        fitting_tests(words, dataset)
    methods = {c.name: _method(c, learner) for c in competing}
    control = METHODS["identity"]
    methods["identity"] = control.factory(learner)
    given = _given(config, learner, methods)
    metrics = _metrics(config, dataset.task)
    described = (config, dataset, learner, train, asked, competing, methods, control)
    return Setting(*described, metrics, given)


def case_of(
    setting: Setting, asked: Asked, features: Features, *, seed: int = 0
) -> Case:
    """Draw a forget set and find the test examples distributed like it."""
    forget = draw_request(asked, setting.dataset, seed=seed, features=features)
    test, unseen = fitting_tests(asked, setting.dataset)
    request = make_request(setting.train, forget)
    return Case(asked.text, request, forget, test, unseen)


def _given(
    config: Config, learner: Learner, methods: dict[str, Method]
) -> tuple[Variables, ...]:
    """Originals that were trained elsewhere."""
    if config.save != "none":
        check_format(config.save)
    if not config.original:
        return ()
    count = len(config.original)
    if count != config.seeds.train:
        raise ValueError(
            f"{count} files of originals for {config.seeds.train} training seeds; give "
            f"one for each: --seeds.train {count}"
        )
    traced = [name for name, method in methods.items() if method.reads_trace]
    if traced:
        raise ValueError(
            f"{traced[0]} reads a trace of training, and an original from a file has "
            "none; choose other --methods"
        )
    like = jax.eval_shape(learner.model.init, jax.random.key(0))
    return tuple(read_variables(path, like) for path in config.original)


def _method(contender: Contender, learner: Learner) -> Method:
    """The method of a contender; what was brought along may be no factory at all."""
    if contender.method in METHODS:
        return contender.entry.factory(learner, **contender.options)
    try:
        made = contender.entry.factory(learner, **contender.options)
    except Exception as error:
        raise ValueError(
            f"{contender.method} could not be made: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Method):
        raise ValueError(
            f"{contender.method} gave {type(made).__name__}, expected a "
            "unlearn_jax.methods.Method: see stateless in unlearn_jax.methods.method"
        )
    return made


def _metrics(config: Config, task: str) -> dict[str, Metric]:
    """All metrics of the task, and those that are brought along, by their row's name.

    Raises:
        ValueError: a metric of another task, or of a name that is taken.
    """
    metrics = {name: METRICS[name] for name in TASKS[task].metrics}
    for brought in config.metrics:
        name, metric = short_name(brought), metric_of(brought)
        if name in metrics:
            raise ValueError(
                f"there is a metric {name!r} already; give yours another name"
            )
        if task not in metric.tasks:
            raise ValueError(
                f"metric {name!r} is for {' and '.join(metric.tasks)}, this data set "
                f"is a {task}; leave it out"
            )
        metrics[name] = metric
    return metrics


def fitting_tests(asked: Asked, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Masks of test examples like the retained, and like the forgotten ones."""
    labels = dataset.splits.test.targets
    everything = np.ones(len(labels), bool)
    if asked.kind == "partial":
        return everything, np.asarray(labels) >= asked.label
    if asked.kind not in ("class", "sub_class"):
        return everything, everything
    finer = labels if asked.kind == "class" else dataset.test_subclasses
    labels = np.array(asked.labels or (asked.label,), np.int64)
    unseen = np.isin(np.asarray(finer), labels)
    if not unseen.any():
        told = ", ".join(map(str, labels.tolist()))
        raise ValueError(
            f"request {asked.text!r}: no test example has label {told}, so no "
            f"non-member to compare with; choose another label"
        )
    return ~unseen, unseen
