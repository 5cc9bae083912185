"""Nearest class mean: the plainest study there is.

Question: how many test images lie nearest to the mean of their own class?
Command: ``python plain_study.py`` (digits, a second).
Expect: 9 of 10 on digits, when all images are averaged.
"""

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np

from experiments.frame.command import main
from experiments.frame.config import StudyConfig
from experiments.frame.findings import Finding, about, table
from experiments.frame.problem import Data, load
from experiments.frame.rules import at_least, some
from experiments.frame.study import Study
from unlearn_jax.results.rows import Row


@dataclass(frozen=True)
class Config(StudyConfig):
    """Which data, and how many images of each class are averaged."""

    data: Data = field(default_factory=Data)
    counts: tuple[int, ...] = (1, 10, 1000)


def accuracy(dataset, count):
    train, test = dataset.splits
    own = [train.inputs[train.targets == c][:count] for c in range(dataset.classes)]
    gaps = [np.sum((test.inputs - few.mean(0)) ** 2, (1, 2, 3)) for few in own]
    right = 100 * float(np.mean(np.argmin(gaps, axis=0) == test.targets))
    return [Row("accuracy", right, "%", {"count": count})]


def measure(bench, setting):
    for count in setting.config.counts:
        yield from bench.rows(f"{count}", partial(accuracy, setting.dataset, count))


def show(config, results):
    lines = [[str(row.at["count"]), row.value] for row in results.rows]
    return [Finding([table("m", about(results.run), ("images", "right (%)"), lines)])]


STUDY = Study(
    "plain",
    __doc__,
    lambda data: {"small": Config(data=Data(data)), "smoke": Config(scale="smoke")},
    lambda config: SimpleNamespace(config=config, dataset=load(config.data)),
    measure,
    show,
    rules=(*some("counts"), *at_least(1, "counts"), *at_least(0, "data.limit")),
)

if __name__ == "__main__":
    main(STUDY)
