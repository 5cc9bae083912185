"""Run methods: prepared once per original, compiled once per shape, timed warm."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments._setting import Asked, Setting, seed_key
from experiments._trace import trace_of_original
from unlearn_jax.evaluation.cost import Compiled, Cost, compile_once, run
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.types import Variables


class Forgotten(NamedTuple):
    """An unlearned model and its price; ``prepare`` is None where nothing was done."""

    variables: Variables
    prepare: Cost | None
    forget: Cost


class Forgetter:
    """Applies the methods of a setting to its originals; traces lie in ``folder``."""

    def __init__(self, setting: Setting, originals: list[Variables], folder: Path):
        self._setting = setting
        self._folder = folder
        self._traces: dict[int, Any] = {}
        self._originals = originals
        self._programs: dict[Any, Compiled] = {}
        self._prepared: tuple[Any, Any] = (None, None)
        loop = choose_fit_loop(setting.learner, setting.train)
        self._eager = loop == "host"

    def __call__(self, name: str, i: int, j: int, asked: Asked) -> Forgotten:
        """Unlearn ``asked`` from original i with the j-th randomness of the method."""
        method = self._setting.methods[name]
        original = self._originals[i]
        if self._prepared[0] != (name, i):
            key = seed_key("prepare", i)
            arguments = (key, original, self._setting.train)
            if method.reads_trace:
                arguments = (*arguments, self._trace(i)[0])
            state, cost = self._run((name, "prepare"), method.prepare, *arguments)
            if method.reads_trace:
                cost = _added(cost, *self._trace(i)[1:])
            self._prepared = ((name, i), (state, cost))
        state, prepare_cost = self._prepared[1]
        (variables, _), cost = self._run(
            (name, "forget"),
            method.forget,
            seed_key("unlearn", i, j),
            state,
            original,
            asked.request,
        )
        prepares = bool(jax.tree.leaves(state))
        return Forgotten(variables, prepare_cost if prepares else None, cost)

    def _trace(self, i: int) -> Any:
        if i not in self._traces:
            given = self._setting, self._folder, self._originals[i], i
            self._traces = {i: trace_of_original(*given)}
        return self._traces[i]

    def _run(self, name: Any, function: Any, *arguments: Any) -> tuple[Any, Cost]:
        if self._eager:
            start = time.perf_counter()
            result = jax.block_until_ready(function(*arguments))
            return result, Cost(0.0, time.perf_counter() - start, 1, None, None)
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        key = (name, structure, shapes)
        if key not in self._programs:
            self._programs[key] = compile_once(function, *arguments)
        return run(self._programs[key], *arguments)


def _added(cost: Cost, compile_seconds: float, seconds: float) -> Cost:
    """The price of preparing, with that of the trace."""
    return cost._replace(
        compile_seconds=cost.compile_seconds + compile_seconds,
        seconds=cost.seconds + seconds,
    )
