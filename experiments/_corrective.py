"""Manipulate, train, correct with a known part, and judge by the true labels."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._corrective_methods import Contestant, agreement
from experiments._study import Note
from experiments.frame.problem import seed_key
from experiments.frame.progress import progress
from unlearn_jax.data.accumulate import collect
from unlearn_jax.data.batch import Dataset, bucket, pad
from unlearn_jax.data.corrupt import (
    Corrupted,
    confuse_classes,
    known_part,
    make_patch,
    poison,
    with_patch,
)
from unlearn_jax.evaluation.cost import compile_once
from unlearn_jax.methods import Request, make_request
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

KINDS = ("backdoor", "confusion")
ORIGINAL = "original"


class Setting(NamedTuple):
    """Description: clean data, how models are trained, and who corrects them."""

    dataset: Dataset
    learner: Learner
    contestants: dict[str, Contestant]


class Judges(NamedTuple):
    """Description: test inputs, and which of their predictions count for what.

    Attributes:
        inputs: Of the manipulated kind, then clean ones.
        targets: True labels.
        corrected: Mask: does the manipulation still show?
        retained: Mask: is the rest as good as before?
    """

    inputs: Array
    targets: np.ndarray
    corrected: np.ndarray
    retained: np.ndarray


class _Programs:
    """Compiled once for each name: shapes never change within a study."""

    def __init__(self) -> None:
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self, name: Any, function: Callable[..., Any], *arguments: Any
    ) -> tuple[Any, float]:
        """The result, and seconds without compilation."""
        if name not in self._programs:
            self._programs[name] = compile_once(function, *arguments).call
        start = time.perf_counter()
        result = jax.block_until_ready(self._programs[name](*arguments))
        return result, time.perf_counter() - start


def corrupted(config: Any, dataset: Dataset, kind: str, seed: int) -> Corrupted:
    """The training set with its bad examples; another seed, other ones."""
    train = dataset.splits.train
    if kind == "backdoor":
        patch = make_patch(train, size=config.patch)
        return poison(train, config.backdoor, patch, target=config.target, seed=seed)
    return confuse_classes(train, config.confusion, *config.classes, seed=seed)


def judges(config: Any, dataset: Dataset, kind: str) -> Judges:
    """What of the test set is asked, with true labels throughout."""
    train, test = dataset.splits
    targets = np.asarray(test.targets)
    if kind == "backdoor":
        patched = with_patch(test, make_patch(train, size=config.patch))
        mask = np.arange(2 * len(targets)) < len(targets)
        inputs = np.concatenate([patched.inputs, np.asarray(test.inputs)])
        return Judges(jnp.asarray(inputs), np.tile(targets, 2), mask, ~mask)
    mask = np.isin(targets, config.classes)
    return Judges(jnp.asarray(test.inputs), targets, mask, ~mask)


def measure(config: Any, setting: Setting) -> list[Note]:
    """Every kind, seed, method and share; numbers of the original go by share 0."""
    total = len(config.kinds) * config.seeds * len(setting.contestants)
    notes: list[Note] = []
    programs = _Programs()
    with progress("manipulate, train, correct", total) as advance:
        for kind in config.kinds:
            judged = judges(config, setting.dataset, kind)
            for seed in range(config.first, config.first + config.seeds):
                bad = corrupted(config, setting.dataset, kind, seed)
                train = jax.tree.map(jnp.asarray, bad.data)
                original, _ = programs(
                    "fit",
                    lambda key, data: fit(key, setting.learner, data),
                    seed_key("train", seed),
                    train,
                )
                model = _Model(setting, programs, kind, judged)
                notes += model.notes(ORIGINAL, f"{kind}:0", seed, original)
                for name, contestant in setting.contestants.items():
                    notes += _curve(
                        config, model, seed, name, contestant, original, train, bad
                    )
                    advance(1)
    return notes


class _Model(NamedTuple):
    """Description: what one kind's models are judged with."""

    setting: Setting
    programs: _Programs
    kind: str
    judged: Judges

    def notes(
        self, name: str, request: str, seed: int, variables: Variables
    ) -> list[Note]:
        """Accuracies against true labels."""
        apply = self.setting.learner.model.apply
        predicted, _ = self.programs(
            ("predict", self.kind),
            lambda variables, inputs: collect(
                lambda part, at: jnp.argmax(apply(at, part), axis=-1), inputs, variables
            ),
            variables,
            self.judged.inputs,
        )
        hits = np.asarray(predicted) == self.judged.targets
        parts = {"corrected": self.judged.corrected, "retained": self.judged.retained}
        return [
            Note(
                name, "accuracy", 100 * float(hits[part].mean()), "%", request, at, seed
            )
            for at, part in parts.items()
        ]

    def agreement(self, variables: Variables, data: Batch) -> float:
        """How often given labels are predicted."""
        share, _ = self.programs(
            ("agreement", len(data.weights)),
            lambda at, data: agreement(self.setting.learner, at, data),
            variables,
            data,
        )
        return float(share)


def _curve(
    config: Any,
    model: _Model,
    seed: int,
    name: str,
    contestant: Contestant,
    original: Variables,
    train: Batch,
    bad: Corrupted,
) -> list[Note]:
    """One method over all shares of the bad examples."""
    state, _ = model.programs(
        (name, "prepare"),
        contestant.prepare,
        seed_key("prepare", seed),
        original,
        train,
    )
    size = bucket(max(config.backdoor, config.confusion))
    notes = []
    for share in config.shares:
        known = known_part(bad.indices, share, seed=seed)
        request = make_request(train, known)
        request = request._replace(forget=pad(request.forget, size))
        found, seconds, strength, left = _search(
            config, model, seed, name, contestant, original, state, request
        )
        text = f"{model.kind}:{share:g}"
        notes += model.notes(name, text, seed, found)
        notes.append(Note(name, "seconds", seconds, "s", text, "", seed))
        notes.append(
            Note(name, "agreement", 100 * left, "%", text, "forget", seed),
        )
        if strength is not None:
            notes.append(Note(name, "strength", strength, "1", text, "", seed))
    return notes


def _search(
    config: Any,
    model: _Model,
    seed: int,
    name: str,
    contestant: Contestant,
    original: Variables,
    state: Any,
    request: Request,
) -> tuple[Variables, float, float | None, float]:
    """The weakest strength that forgets enough and keeps enough.

    Where there is none, of those that keep enough the one that forgets most; where all
    keep too little, the weakest.

    Returns:
        Model, seconds of all that was tried, strength, and the known bad examples'
        agreement with their labels.
    """
    goal = config.rho * model.agreement(original, request.forget)
    least = config.keep * model.agreement(original, request.retain)
    spent, best = 0.0, None
    steps = zip(contestant.strengths, contestant.forgets, strict=True)
    for place, (strength, forget) in enumerate(steps):
        (variables, _), seconds = model.programs(
            (name, place), forget, seed_key("unlearn", seed), state, original, request
        )
        spent += seconds
        left = model.agreement(variables, request.forget)
        keeps = model.agreement(variables, request.retain) >= least
        if best is None or (keeps and left < best[2]):
            best = variables, strength, left
        if left <= goal or not keeps:
            break
    assert best is not None  # every contestant has a strength
    variables, strength, left = best
    return variables, spent, strength, left
