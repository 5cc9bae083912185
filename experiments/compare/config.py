"""What a comparison is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from experiments.frame.options import Options, words_of
from experiments.frame.plugins import Factories, entry, user_file
from experiments.frame.problem import PROBLEM_RULES, TrainingConfig
from experiments.frame.requests import request_files
from experiments.frame.rules import Rule, at_least, some
from unlearn_jax.evaluation import METRICS, Metric
from unlearn_jax.evaluation.metric import ANY_TASK
from unlearn_jax.methods import METHODS, Entry
from unlearn_jax.train.ensemble import Members


def entry_of(name: str) -> Entry:
    """The entry of a method; one that is brought along may be a mere factory.

    Raises:
        ValueError: there is no such method.
    """

    def wrap(factory: Any) -> Entry:
        return Entry(factory, ANY_TASK, "both", True, "brought along")

    return entry(name, METHODS, "methods", "factory of a method", wrap)


def metric_of(name: str) -> Metric:
    """A metric that is brought along; a mere function has no unit and no aim.

    Raises:
        ValueError: there is no such thing, or it is no function.
    """

    def wrap(function: Any) -> Metric:
        return Metric(function, "1", "oracle", ANY_TASK, "brought along")

    return entry(name, METRICS, "metrics", "metric", wrap)


FACTORIES = Factories(entry_of, METHODS)


ALL = "all"
"""Among the methods: every one that can do the task."""


def methods_of(names: Sequence[str], task: str) -> tuple[str, ...]:
    """Names of methods, with "all" spelt out; what is named beside it comes after."""
    if ALL not in names:
        return tuple(names)
    every = tuple(name for name, entry in METHODS.items() if task in entry.tasks)
    return (*every, *(name for name in names if name not in (ALL, *every)))


@dataclass(frozen=True)
class Seeds:
    """How often everything is repeated, at three levels.

    Attributes:
        train: Originals, each with an oracle of its own randomness.
        unlearn: Runs of a method on each original.
        evaluate: Evaluations of each unlearned model.
        first: Number of the first training seed; tune with seeds that no table uses.
    """

    train: int = 5
    unlearn: int = 1
    evaluate: int = 1
    first: int = 0


@dataclass(frozen=True)
class Config(TrainingConfig):
    """One comparison.

    Attributes:
        l2: Coefficient of half the squared norm of the parameters in the objective.
        requests: What to forget, one comparison each: "random:0.1" or "random:100",
            "class:3", "sub_class:3", "sub_class:3,8", "file:indices.npy",
            "clustered:100",
            "clustered:3:100", "inputs:100", "highest:100:scores.npy".
        methods: Names that ``python -m experiments.list`` shows, or
            "my_file.py:my_method"; "all" stands for every one of the list that can do
            the task.
        metrics: Further metrics, "my_file.py:my_metric": a function ``(key, unlearned,
            references)`` to values by split, or a Metric, see
            ``unlearn_jax.evaluation.metric``.
        options: Hyper-parameters, "method.name=value"; others stay as they are.
        sweep: Several values of one, "ssd.alpha=1,3,10": the method is tried with each;
            of two of the same method, with each combination.
        seeds: Repetitions.
        oracles: Retrained models per request, at least as many as training seeds; the
            floor is measured among them.
        members: Train ensembles as one program ("vmap"), one after another ("loop"), or
            the faster on this device ("auto").
        relearn_steps: Most steps that relearning may take.
        original: Models that are there already, one for each training seed, instead
            of trained originals: .npz, .safetensors, or the folder of an Orbax
            checkpoint.
        save: Write every unlearned model to the run's folder "models", in this format.
    """

    FREE: ClassVar[tuple[str, ...]] = (*TrainingConfig.FREE, "members")

    l2: float = 0.0
    requests: tuple[str, ...] = ("random:0.1",)
    methods: tuple[str, ...] = (ALL,)
    metrics: tuple[str, ...] = ()
    options: Annotated[Options, words_of(FACTORIES)] = field(default_factory=Options)
    sweep: Annotated[Options, words_of(FACTORIES, several=True)] = field(
        default_factory=Options
    )
    seeds: Seeds = field(default_factory=Seeds)
    oracles: int = 10
    members: Members = "auto"
    relearn_steps: int = 200
    original: tuple[Path, ...] = ()
    save: Literal["none", "npz", "safetensors", "orbax"] = "none"


RULES: tuple[Rule, ...] = (
    *PROBLEM_RULES,
    *at_least(0.0, "l2"),
    *at_least(1, "relearn_steps", "seeds.train", "seeds.unlearn", "seeds.evaluate"),
    *at_least(0, "seeds.first"),
    *some("requests", "methods"),
)


def check_oracles(config: Config) -> None:
    """Refuse fewer oracles than the tables need.

    Raises:
        ValueError: how many there must be, and what each is for.
    """
    fewest = max(3, config.seeds.train)
    if config.oracles < fewest or not math.isfinite(config.oracles):
        raise ValueError(
            f"{config.oracles} oracles for {config.seeds.train} training seeds; give "
            f"at least {fewest}: one per seed, two for the floor and a third that "
            "attacks learn from"
        )


def files(config: Config) -> list[Path]:
    """Files whose contents the numbers depend on: requests, originals, plug-ins."""
    brought = [user_file(name) for name in (*config.methods, *config.metrics)]
    given = [
        file
        for path in config.original
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    own = (file for file in brought if file is not None)
    return [*request_files(config.requests), *own, *given]
