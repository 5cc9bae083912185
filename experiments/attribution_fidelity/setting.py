"""What attributions are held against: data, learner, queries, and who competes."""

from typing import NamedTuple

import numpy as np

from experiments.attribution_fidelity.config import Config, check_together
from experiments.frame.problem import Problem, problem
from unlearn_jax.attribution import Attribution
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.types import Batch


class Setting(NamedTuple):
    """Description: what is loaded and checked before anything is trained.

    Attributes:
        config: As asked.
        problem: Data and learner.
        asked: (q,) indices of the queries in the test set.
        queries: The examples at ``asked``.
        made: The attributions by label.
    """

    config: Config
    problem: Problem
    asked: np.ndarray
    queries: Batch
    made: dict[str, Attribution]

    @property
    def dataset(self) -> Dataset:
        """As loaded."""
        return self.problem.dataset


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: unknown names, absent data, numbers that make no sense.
    """
    check_together(config)
    found = problem(config.data, config.model, config.recipe)
    tests, n = len(found.test.targets), len(found.train.targets)
    if config.queries > tests or config.removed >= n:
        raise ValueError(
            f"{found.dataset.title} has {n} training and {tests} test examples here; "
            f"{config.queries} queries or {config.removed} removed are too many"
        )
    random = np.random.default_rng(config.seed)
    asked = np.sort(random.permutation(tests)[: config.queries])
    made = {one.label: one.made(found.learner) for one in config.attributions}
    return Setting(config, found, asked, take(found.test, asked), made)
