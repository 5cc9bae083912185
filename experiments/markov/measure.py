"""Train on all chains and on one, forget the others, and compare distributions."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.frame.bench import Bench
from experiments.language.contenders import Costs
from experiments.language.contest import Court, at, both_kinds, contest
from experiments.language.trials import (
    ORACLE,
    ORIGINAL,
    Task,
    losses_of,
    losses_rows,
    over_models,
)
from experiments.markov.config import Config
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.data.markov import Chains, markov, true_log_probabilities
from unlearn_jax.methods import make_request
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Variables

TRUTH = "truth"


class Setting(NamedTuple):
    """Description: the chains, and what is unlearned."""

    config: Config
    dataset: Dataset
    chains: Chains
    task: Task


def build(config: Config) -> Setting:
    """Draw the chains, and one more that nobody is trained on.

    Raises:
        ValueError: fewer than two chains, or sizes of the model that do not fit.
    """
    counts = *config.counts, 0
    dataset, drawn = markov(
        config.seed,
        counts,
        tests=(config.tests,) * len(counts),
        lengths=(config.length,) * len(counts),
        leakage=config.leakage,
    )
    model = MODELS["transformer"](
        (config.length,),
        dataset.classes,
        depth=config.depth,
        width=config.width,
        scan=config.depth > 2,
    )
    learner = Learner(model, sequence_nll, 0.0, config.recipe)
    train, test = dataset.splits
    sources = np.asarray(dataset.subclasses)
    unseen = np.flatnonzero(np.asarray(dataset.test_subclasses) == len(config.counts))
    task = Task(
        learner,
        train,
        make_request(train, np.flatnonzero(sources > 0)),
        take(test, unseen),
        Costs(sum(config.counts[1:]), config.counts[0], config.passes),
        config.models,
        config.seed,
    )
    return Setting(config, dataset, drawn, task)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Divergences of every method from the truth and from retraining, by chain."""
    task = setting.task
    models = both_kinds(bench, task, task.request.retain)
    said, losses = speaker(setting), losses_of(task)
    oracles = said(models[ORACLE])

    def rows(name: str, choice: str, known: np.ndarray) -> Iterator[Row]:
        return divergences(setting, name, known, oracles, choice)

    yield from rows(ORACLE, "", oracles)
    yield from losses_rows(losses(models[ORACLE]), {"method": ORACLE})
    court = Court(losses, said, rows)
    yield from contest(bench, task, setting.config, models[ORIGINAL], court)


def speaker(setting: Setting) -> Callable[[Any], np.ndarray]:
    """``params (models, p) -> log-probabilities (models, n, t, k)`` of the tests."""
    model = setting.task.learner.model

    def said(at: Variables, inputs: Any) -> Array:
        return jax.nn.log_softmax(model.apply(at, inputs), axis=-1)

    return over_models(setting.task, said, setting.dataset.splits.test.inputs)


def divergences(
    setting: Setting, name: str, said: np.ndarray, oracles: np.ndarray, choice: str = ""
) -> Iterator[Row]:
    """KL(truth ‖ model), and the mean over oracles of KL(oracle ‖ model) [nats].

    Of oracles themselves over the other oracles, which is the floor. The chain that
    nobody was trained on has no rows.

    Args:
        setting: Chains and test sequences.
        name: Of the row.
        said: (models, n, t, k) log-probabilities.
        oracles: The same of the retrained models.
        choice: How the setting was chosen.
    """
    said, oracles = np.asarray(said, np.float64), np.asarray(oracles, np.float64)
    sources = np.asarray(setting.dataset.test_subclasses)
    inputs = np.asarray(setting.dataset.splits.test.inputs)
    truth = true_log_probabilities(setting.chains, inputs, sources)
    for chain, split in enumerate(setting.chains.names[: len(setting.config.counts)]):
        there = sources == chain
        for seed, own in enumerate(said):
            others = [
                oracle
                for i, oracle in enumerate(oracles)
                if not (name == ORACLE and i == seed)
            ]
            where = at(name, choice, split=split, seed=seed)
            gap = kl(truth[there], own[there])
            yield Row(f"kl_{TRUTH}", gap, "nats", where)
            if others:
                mean = np.mean([kl(o[there], own[there]) for o in others])
                yield Row(f"kl_{ORACLE}", float(mean), "nats", where)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over positions of KL(exp p ‖ exp q), of log-probabilities (..., k)."""
    probable = np.isfinite(p)
    gap = np.where(probable, np.where(probable, p, 0) - q, 0)
    return float(np.mean(np.sum(np.exp(p) * gap, axis=-1)))
