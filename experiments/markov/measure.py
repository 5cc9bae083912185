"""Train on all chains and on one, forget the others, and compare distributions."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.bench import Bench, piece_of, rows_of
from experiments.frame.progress import progress
from experiments.language.contenders import Costs
from experiments.language.trials import (
    CHOICES,
    ORACLE,
    ORIGINAL,
    Task,
    chosen,
    losses_of,
    losses_rows,
    over_models,
    rows_of_choice,
    trained,
    tried,
    variables_of,
)
from experiments.markov.config import Config
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.data.markov import Chains, markov, true_log_probabilities
from unlearn_jax.methods import make_request
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array

TRUTH = "truth"


class Judges(NamedTuple):
    """Description: what is compiled once and serves every method.

    Attributes:
        said: ``params (models, p) -> log-probabilities (models, n, t, k)`` on the test
            sequences.
        losses: See ``losses_of``.
    """

    said: Callable[[Any], np.ndarray]
    losses: Callable[[Any], np.ndarray]


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
    sets = {ORIGINAL: task.train, ORACLE: task.request.retain}
    models = {}
    for name, data in sets.items():
        with progress(f"train {name}", 1):
            make = functools.partial(trained, task, name, data)
            models[name] = bench.keep(name, make).arrays["params"]
    judged = judges(setting)
    said = judged.said(models[ORACLE])
    yield from divergences(setting, ORACLE, said, said)
    yield from losses_rows(judged.losses(models[ORACLE]), {"method": ORACLE})
    with bench.progress("forget", len(setting.config.methods)) as advance:
        for name in setting.config.methods:
            make = functools.partial(
                _contended, setting, judged, name, models[ORIGINAL], said
            )
            yield from rows_of(bench.keep(f"forget/{name}", make))
            advance(1)


def judges(setting: Setting) -> Judges:
    """Judges of this setting's models."""
    learner = setting.task.learner

    def said(flat: Any, inputs: Any) -> Array:
        outputs = learner.model.apply(variables_of(learner, flat), inputs)
        return jax.nn.log_softmax(outputs, axis=-1)

    inputs = jnp.asarray(setting.dataset.splits.test.inputs)
    return Judges(over_models(said, inputs), losses_of(setting.task))


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
            at = _at(name, choice, split=split, seed=seed)
            gap = kl(truth[there], own[there])
            yield Row(f"kl_{TRUTH}", gap, "nats", at)
            if others:
                mean = np.mean([kl(o[there], own[there]) for o in others])
                yield Row(f"kl_{ORACLE}", float(mean), "nats", at)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Mean over positions of KL(exp p ‖ exp q), of log-probabilities (..., k)."""
    probable = np.isfinite(p)
    gap = np.where(probable, np.where(probable, p, 0) - q, 0)
    return float(np.mean(np.sum(np.exp(p) * gap, axis=-1)))


def _at(name: str, choice: str, **where: str | int) -> dict[str, str | int | float]:
    return {"method": name, **({"choice": choice} if choice else {}), **where}


def _contended(
    setting: Setting,
    judged: Judges,
    name: str,
    originals: np.ndarray,
    oracles: np.ndarray,
) -> Piece:
    """All trials of a method, and the rows of those that are chosen."""
    config = setting.config
    before = judged.losses(originals)
    made = tried(setting.task, name, config.trials, originals, judged.losses)
    rows = [Row("forget_seconds", made.seconds, "s", {"method": name})]
    for choice in CHOICES:
        place = chosen(made.losses.mean(1), before.mean(0), config.budget, choice)
        said = judged.said(made.params[place])
        rows += divergences(setting, name, said, oracles, choice)
        rows += rows_of_choice(name, choice, made, place, before)
    return piece_of(rows)
