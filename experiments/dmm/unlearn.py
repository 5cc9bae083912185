"""Unlearn every original with one contender; its margins, and what it costs."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.dmm.contenders import Contender
from experiments.dmm.models import Case, Trained
from experiments.dmm.setting import Setting
from experiments.frame.ensembles import EVERYTHING, stream_keys
from experiments.frame.trace import kept_trace
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.attribution.trace import Trace
from unlearn_jax.evaluation.cost import Compiled, Cost, added, compile_once, run


class Answers(NamedTuple):
    """Value: what models say of the judged points.

    Attributes:
        margins: (m, q) log-odds of the true class.
        right: (m, q) whether it is the class that is predicted.
    """

    margins: np.ndarray
    right: np.ndarray


def stacked(answers: list[Answers]) -> Answers:
    """Of single models, (q,) each, one of all."""
    return Answers(*(np.stack(part) for part in zip(*answers, strict=True)))


class Unlearner:
    """Applies contenders to the originals; holds the states of the latest one.

    Args:
        setting: Whose contenders.
        trained: The originals.
        folder: Where traces are kept.
    """

    def __init__(self, setting: Setting, trained: Trained, folder: Path):
        self._setting, self._trained = setting, trained
        self._seed = setting.config.seed
        self._apply = jax.jit(setting.problem.learner.model.apply)
        self._margins = jax.jit(margin)
        self._folder = folder
        self._tracing: dict[Any, Compiled] = {}
        self._whose: Any = None
        self._states: dict[int, Any] = {}
        self._prepare: Compiled | None = None
        self._prepared: Cost | None = None

    def __call__(
        self, contender: Contender, case: Case
    ) -> tuple[Answers, dict[str, Cost]]:
        """Unlearn every original, one after the other, as a user would.

        Returns:
            (answers, costs): of all originals, and the price of one request,
            "forget", and of what was done before it, "prepare", where anything was.
        """
        found, costs, program = [], {}, None
        alone = self._setting.config.one_original
        for i in range(len(self._trained.originals)):
            original = self._trained.originals[0 if alone else i]
            state = self._state(contender, case, i)
            key = jax.random.fold_in(jax.random.key(self._seed + 1), i)
            arguments = (key, state, original, case.request, case.points)
            if program is None:
                program = compile_once(contender.forget, *arguments)
                result, costs["forget"] = run(program, *arguments)
            else:
                result = program.call(*arguments)
            outputs = result if contender.direct else self._outputs(result, case)
            found.append(self._answers(outputs, case))
            if contender.prepare is not None and jax.tree.leaves(state):
                assert self._prepared is not None
                costs["prepare"] = self._prepared
        return stacked(found), costs

    def answers(self, models: list[Any], case: Case) -> Answers:
        """Of models as they are."""
        return stacked(
            [self._answers(self._outputs(one, case), case) for one in models]
        )

    def _answers(self, outputs: Any, case: Case) -> Answers:
        targets = case.points.targets
        right = np.argmax(np.asarray(outputs), axis=-1) == np.asarray(targets)
        return Answers(np.asarray(self._margins(outputs, targets)), right)

    def _outputs(self, variables: Any, case: Case) -> Any:
        return self._apply(variables, case.points.inputs)

    def _state(self, contender: Contender, case: Case, i: int) -> Any:
        """What is known before the request: of original i, or of all of them."""
        if contender.prepare is None:
            return case.oracles[self._setting.config.originals + i]
        name, seed = contender.attribution, self._seed
        whose = name or (contender.family, contender.setting)
        if whose != self._whose:
            self._whose, self._states, self._prepare = whose, {}, None
        i = 0 if self._setting.config.one_original else i
        place = 0 if name else i
        if place in self._states:
            return self._states[place]
        if name:
            key, given = jax.random.key(seed), self._trained.evidence
        else:
            key = jax.random.fold_in(jax.random.key(seed + 2), i)
            given = self._trained.originals[i]
        arguments: Any = (key, given, self._setting.problem.train)
        before = None
        if contender.traced:
            trace, before = self._trace(i)
            arguments = (*arguments, trace)
        if self._prepare is None:
            self._prepare = compile_once(contender.prepare, *arguments)
            self._states[place], cost = run(self._prepare, *arguments)
            self._prepared = cost if before is None else added(cost, before)
        else:
            self._states[place] = self._prepare.call(*arguments)
        return self._states[place]

    def _trace(self, i: int) -> tuple[Trace, Cost]:
        """What the training of original i has left, and its price."""
        _, learner, train, _ = self._setting.problem
        own = stream_keys(self._seed, EVERYTHING, i + 1)[i]
        keys = own, jax.random.fold_in(jax.random.key(self._seed + 3), i)
        given = learner, train, self._trained.originals[i], keys
        return kept_trace(self._folder / f"{i}", *given, self._tracing)
