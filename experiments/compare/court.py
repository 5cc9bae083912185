"""One request's bench: its oracles, and the judging of every model against them."""

from typing import NamedTuple

import numpy as np

from experiments.compare.judge import (
    Judge,
    about_rows,
    histogram_losses,
    metric_rows,
    relearn_rows,
    split,
)
from experiments.compare.setting import Case, Setting
from unlearn_jax.evaluation import References
from unlearn_jax.evaluation.outputs import (
    SplitOutputs,
    losses,
    select_members,
    stack_members,
)
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Variables

RELEARN_MARGIN = 1.05


class Judged(NamedTuple):
    """What is kept of one judged model."""

    rows: list[Row]
    losses: dict[str, np.ndarray]


class Court:
    """Judges models on one request.

    Oracle i is the reference of everything unlearned from original i; the attacks that
    learn from other models see all oracles but that one. With ``metrics`` given, a
    model is judged by these alone, and nothing is relearned.
    """

    def __init__(
        self,
        setting: Setting,
        case: Case,
        judge: Judge,
        originals: list[Variables],
        oracles: list[Variables],
        metrics: tuple[str, ...] | None = None,
    ):
        self.case, self.oracles, self.metrics = case, oracles, metrics
        self._setting, self._judge, self._originals = setting, judge, originals
        self._outputs = [self._split(model) for model in oracles]
        self._stacked = stack_members(self._outputs)
        self._before: dict[int, SplitOutputs] = {}
        self._thresholds: dict[int, float] = {}

    def unlearned(self, variables: Variables, i: int, j: int) -> Judged:
        """Judge a model that was unlearned from original i."""
        outputs = self._split(variables)
        rows = self._metric_rows(outputs, self._references(i), (i, j))
        rows += self._own_rows(variables, i)
        rows += about_rows(self._setting, self.case, self._originals[i], variables)
        return Judged(rows, histogram_losses(self._setting, outputs))

    def oracle(self, i: int) -> Judged:
        """Judge oracle i itself; closeness to itself is left out."""
        outputs = self._outputs[i]
        rows = self._metric_rows(outputs, self._references(i), (i, 0))
        rows += self._own_rows(self.oracles[i], i)
        return Judged(rows, histogram_losses(self._setting, outputs))

    def pair(self, i: int) -> tuple[int, list[Row], list[Row]]:
        """Judge oracle i against the next oracle j: (j, rows of i, rows of j)."""
        count = len(self._outputs)
        j = (i + 1) % count
        others = [m for m in range(count) if m not in (i, j)]
        shared = select_members(self._stacked, others) if others else None
        one, other = self._outputs[i], self._outputs[j]
        pairs = ((one, other, i), (other, one, j))
        first, second = (
            self._metric_rows(
                ours, References(theirs, shared, self._original(m)), (m, 0)
            )
            for ours, theirs, m in pairs
        )
        return j, first, second

    def _metric_rows(
        self, outputs: SplitOutputs, references: References, seeds: tuple[int, int]
    ) -> list[Row]:
        return metric_rows(
            self._setting, outputs, references, seeds=seeds, names=self.metrics
        )

    def _split(self, variables: Variables) -> SplitOutputs:
        return split(self._setting, self.case, self._judge.outputs(variables))

    def _references(self, i: int) -> References:
        others = [m for m in range(len(self._outputs)) if m != i]
        shared = select_members(self._stacked, others) if others else None
        return References(self._outputs[i], shared, self._original(i))

    def _original(self, i: int) -> SplitOutputs:
        """Outputs of original i; oracles beyond them share the originals in turn."""
        i %= len(self._originals)
        if i not in self._before:
            self._before[i] = self._split(self._originals[i])
        return self._before[i]

    def _own_rows(self, variables: Variables, i: int) -> list[Row]:
        if self._setting.dataset.task != "classification" or self.metrics is not None:
            return []
        if i not in self._thresholds:
            before = losses(self._original(i).forget)
            self._thresholds[i] = RELEARN_MARGIN * float(before.mean()) + 1e-3
        return relearn_rows(
            self._setting,
            self.case,
            self._judge,
            variables,
            self._thresholds[i],
            seed=i,
        )
