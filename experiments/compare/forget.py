"""Run methods: prepared once per original, compiled once per shape, timed warm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.compare.contenders import Contender
from experiments.compare.setting import Case, Setting
from experiments.frame.price import priced
from experiments.frame.problem import seed_key
from experiments.frame.trace import kept_trace
from unlearn_jax.evaluation.cost import Compiled, Cost, added
from unlearn_jax.solvers.solution import Report
from unlearn_jax.types import Variables


class Forgotten(NamedTuple):
    """An unlearned model and its price.

    Attributes:
        variables: The model.
        prepare: Price of what was done before; None where nothing was.
        forget: Price of the request.
        report: How the method's solver ended; None without one.
    """

    variables: Variables
    prepare: Cost | None
    forget: Cost
    report: Report | None


class Forgetter:
    """Applies the methods of a setting to its originals; traces lie in ``folder``."""

    def __init__(self, setting: Setting, originals: list[Variables], folder: Path):
        self._setting = setting
        self._folder = folder
        self._traces: dict[int, Any] = {}
        self._originals = originals
        self._programs: dict[Any, Compiled] = {}
        self._prepared: tuple[Any, Any] = (None, None)

    def __call__(self, contender: Contender, i: int, j: int, case: Case) -> Forgotten:
        """Unlearn ``case`` from original i with the j-th randomness of the method."""
        name = contender.name
        method, original = self._setting.methods[name], self._originals[i]
        if self._prepared[0] != (name, i):
            arguments: Any = (seed_key("prepare", i), original, self._setting.train)
            if method.reads_trace:
                arguments = (*arguments, self._trace(i)[0])
            state, cost = self._run((name, "prepare"), method.prepare, *arguments)
            if method.reads_trace:
                cost = added(cost, self._trace(i)[1])
            self._prepared = ((name, i), (state, cost))
        state, prepare_cost = self._prepared[1]
        (variables, _, *report), cost = self._run(
            (name, "forget"),
            method.reported or method.forget,
            seed_key("unlearn", i, j),
            state,
            original,
            case.request,
        )
        prepares = bool(jax.tree.leaves(state))
        before = prepare_cost if prepares else None
        return Forgotten(variables, before, cost, report[0] if report else None)

    def _trace(self, i: int) -> Any:
        if i not in self._traces:
            setting, seed = self._setting, self._setting.config.seeds.first + i
            keys = seed_key("train", seed), seed_key("prepare", seed)
            given = setting.learner, setting.train, self._originals[i], keys
            place = self._folder / f"{seed}"
            self._traces = {i: kept_trace(place, *given, self._programs)}
        return self._traces[i]

    def _run(
        self, name: Any, function: Callable[..., Any], *arguments: Any
    ) -> tuple[Any, Cost]:
        setting = self._setting
        what = setting.learner, setting.train, function, *arguments
        return priced(*what, programs=self._programs, name=name)
