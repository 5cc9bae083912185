"""Train the ensemble, look at its outputs, fit datamodels and judge them."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.datamodels.config import Config, slurm_options
from experiments.frame.bench import Bench
from experiments.frame.ensembles import kept_ensemble, subset_training, training_words
from experiments.frame.problem import Problem, problem
from unlearn_jax.attribution.datamodel import fit_datamodel
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.evaluation.datamodelling_score import (
    group_effects,
    linear_datamodelling_score,
)
from unlearn_jax.results.rows import Row
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch

_BLOCK = 32
"""Members whose outputs are in memory at once."""


class Setting(NamedTuple):
    """Description: everything that is trained.

    Attributes:
        config: As asked.
        problem: Data and learner, shared by all members.
        masks: (held_out + members, n) uint8. The judges come first, so that they stay
            judges when members are added.
    """

    config: Config
    problem: Problem
    masks: np.ndarray

    @property
    def dataset(self) -> Dataset:
        """Its splits are data and points."""
        return self.problem.dataset


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set or model, or numbers that do not fit.
    """
    found = problem(config.data, config.model, config.recipe, l2=config.l2)
    n, tests = len(found.train.targets), len(found.test.targets)
    if config.queries > tests:
        raise ValueError(
            f"queries is {config.queries}; expected 3 to {tests}, the test examples of "
            f"{found.dataset.title}"
        )
    if round(config.share * n) >= n:
        raise ValueError(
            f"share is {config.share}; members on all {n} examples do not differ, "
            "choose it lower"
        )
    count = config.held_out + config.members
    return Setting(config, found, subset_masks(config.seed, count, n, config.share))


def remake(config: Config) -> tuple[Learner, Batch, np.ndarray, Plan]:
    """What another process trains: made again from the configuration."""
    setting = build(config)
    return subset_training(setting.problem, config.seed, setting.masks)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """The ensemble, its outputs by kind of example, scores by number of members."""
    config, masks = setting.config, setting.masks
    ensemble = kept_ensemble(
        bench,
        *subset_training(setting.problem, config.seed, masks),
        name=f"train {len(masks)} members",
        known_by=training_words(config),
        members=config.how,
        chunk=config.chunk or None,
        where=config.where,
        workers=config.workers or None,
        remake=functools.partial(remake, config),
        slurm=slurm_options(config.slurm),
    )
    print(f"ensemble: {ensemble.folder}", file=sys.stderr)
    size = ensemble.count * ensemble.points * int(np.prod(ensemble.shape))
    yield Row("members", float(ensemble.count))
    yield Row("examples", float(masks.shape[1]))
    yield Row("subset", float(masks[0].sum()))
    yield Row("points", float(ensemble.points))
    yield Row("train_seconds", ensemble.seconds / ensemble.count, "s")
    yield Row("outputs_bytes", float(size * jnp.dtype(ensemble.dtype).itemsize), "B")
    yield from bench.rows("outputs", lambda: look(ensemble, setting))
    margins = functools.cache(functools.partial(query_margins, ensemble, setting))
    counts = sorted({config.members // part for part in (8, 4, 2, 1)})
    with bench.progress("fit datamodels", len(counts)) as advance:
        for count in counts:
            fit = functools.partial(judge, setting, margins, count)
            yield from bench.rows(f"datamodel/{count}", fit)
            advance(1)


def look(ensemble: Ensemble, setting: Setting) -> Iterator[Row]:
    """Accuracy, margin and its spread over members, on three kinds of examples.

    The spread is that of one example's margin over the members that have (or have not)
    seen it, as a mean over examples.
    """
    train, test = setting.dataset.splits
    targets = np.concatenate([np.asarray(train.targets), np.asarray(test.targets)])
    sums: dict[str, Any] = {}
    rates: dict[str, list[np.ndarray]] = {}
    for first in range(0, ensemble.count, _BLOCK):
        block = slice(first, min(first + _BLOCK, ensemble.count))
        outputs = ensemble.outputs(block)
        right = outputs.argmax(axis=-1) == targets
        margins = _margins(outputs, targets)
        seen = setting.masks[block].astype(bool)
        for kind, there in _kinds(seen, len(test.targets)).items():
            rate = (right & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
            rates.setdefault(kind, []).append(rate)
            parts = np.stack([there, margins * there, margins**2 * there])
            sums[kind] = sums.get(kind, 0) + parts.sum(axis=1)
    for kind, parts in sums.items():
        count, total, squares = parts[:, parts[0] > 1]
        spread = np.sqrt(np.maximum(squares - total**2 / count, 0) / (count - 1))
        accuracy, at = np.concatenate(rates[kind]), {"split": kind}
        yield Row("accuracy", float(accuracy.mean()), "1", at)
        yield Row("accuracy_spread", float(accuracy.std(ddof=1)), "1", at)
        yield Row("margin", float(np.mean(total / count)), "nats", at)
        yield Row("margin_spread", float(spread.mean()), "nats", at)


def query_margins(ensemble: Ensemble, setting: Setting) -> np.ndarray:
    """(m, q) margins of the queries."""
    config = setting.config
    train, test = setting.dataset.splits
    random = np.random.default_rng(config.seed)
    asked = np.sort(random.permutation(len(test.targets))[: config.queries])
    outputs = ensemble.outputs(points=len(train.targets) + asked)
    return _margins(outputs, np.asarray(test.targets)[asked])


def judge(
    setting: Setting, margins: Callable[[], np.ndarray], count: int
) -> Iterator[Row]:
    """LDS of a datamodel fitted to so many members, on members never used."""
    config, masks = setting.config, setting.masks
    judges = slice(0, config.held_out)
    used = slice(config.held_out, config.held_out + count)
    effects = np.asarray(fit_datamodel(masks[used], margins()[used]).coef)
    found = linear_datamodelling_score(
        group_effects(effects, masks[judges]), margins()[judges].T, seed=config.seed
    )
    yield Row("lds", found.value, "1", {"members": count})
    yield Row("lds_stderr", found.stderr, "1", {"members": count})


def _kinds(seen: np.ndarray, tests: int) -> dict[str, np.ndarray]:
    """Which of all points are of a kind, for members with these (m, n) masks."""
    test = np.ones((len(seen), tests), bool)
    return {
        "train, in the subset": np.hstack([seen, ~test]),
        "train, left out": np.hstack([~seen, ~test]),
        "test": np.hstack([np.zeros_like(seen), test]),
    }


def _margins(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(margin(jnp.asarray(outputs), jnp.asarray(targets)), np.float64)
