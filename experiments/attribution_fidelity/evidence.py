"""What attributions read, and the truth that they are held against."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attribution_fidelity.setting import Setting
from experiments.frame.bench import Bench
from experiments.frame.ensembles import (
    EVERYTHING,
    SUBSETS,
    kept_ensemble,
    stream_keys,
    stream_plan,
    subset_training,
    training_words,
)
from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence, Subsets, Trajectory
from unlearn_jax.attribution.output_functions import margin
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.evaluation.cost import Compiled, compile_once
from unlearn_jax.evaluation.cost import run as run_timed
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.fit import choose_fit_loop
from unlearn_jax.train.trajectory import fit_trajectory

TRUTH, REMOVALS = SUBSETS + 1, SUBSETS + 2
"""Streams of keys."""


class Known(NamedTuple):
    """Description: what attributions read.

    Attributes:
        evidence: Of all models and members.
        before: (m, q, k) outputs of the queries by the models of all examples.
        seconds: Of training one of the "models", one of the "members".
    """

    evidence: Evidence
    before: np.ndarray
    seconds: dict[str, float]


class Truth(NamedTuple):
    """Value: what retraining gave.

    Attributes:
        masks: (s, n) training weights.
        runs: (r, q, s) margins of the queries.
    """

    masks: np.ndarray
    runs: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(q, s) over the retrainings of a subset."""
        return self.runs.mean(axis=0)


def train_evidence(bench: Bench, setting: Setting) -> Known:
    """Models of all examples with their way, and models of subsets where needed."""
    config, made = setting.config, setting.problem
    keys = stream_keys(config.seed, EVERYTHING, config.models)
    runs, seconds = _runs(bench, setting, keys)
    models, (checkpoints, rates, steps) = tree.stack(runs)
    trajectory = Trajectory(checkpoints, rates[0], steps[0])
    subsets, spent = None, {"models": seconds}
    if any(one.unit == "members" for one in config.attributions):
        n = len(made.train.targets)
        masks = subset_masks(config.seed, config.members, n, config.share)
        training = subset_training(made, config.seed, masks)
        words = training_words(setting.config)
        trained = kept_ensemble(bench, *training, name="subsets", known_by=words)
        weights = jnp.asarray(masks, made.train.weights.dtype)
        subsets = Subsets(weights, trained.models())
        spent["members"] = trained.seconds / trained.count
    apply = jax.jit(jax.vmap(made.learner.model.apply, (0, None)))
    before = np.asarray(apply(models, setting.queries.inputs))
    return Known(Evidence(models, keys, trajectory, subsets), before, spent)


def train_truth(bench: Bench, setting: Setting) -> Truth:
    """Margins of models retrained on subsets that no attribution has seen."""
    config, n = setting.config, len(setting.problem.train.targets)
    masks = subset_masks(config.seed + 1, config.subsets, n, config.share)
    rows = np.tile(masks, (config.retrainings, 1))
    ensemble = retrained(bench, setting, "truth", rows, TRUTH, subsets=config.subsets)
    margins = margins_of(setting, ensemble.outputs(points=setting.asked))
    shape = (config.retrainings, config.subsets, config.queries)
    return Truth(masks, margins.reshape(shape).swapaxes(1, 2))


def retrained(
    bench: Bench,
    setting: Setting,
    name: str,
    weights: np.ndarray,
    stream: int,
    *,
    grows: bool = True,
    **known_by: Any,
) -> Ensemble:
    """Models of these weights (m, n), applied to all test examples."""
    made, plan = setting.problem, stream_plan(setting.config.seed, stream, weights)
    given = (bench, made.learner, made.train, made.test.inputs, plan)
    words = {**training_words(setting.config), **known_by}
    return kept_ensemble(*given, name=name, known_by=words, grows=grows)


def margins_of(setting: Setting, outputs: np.ndarray) -> np.ndarray:
    """(m, q) margins of the first q queries."""
    targets = setting.queries.targets[: outputs.shape[1]]
    return np.asarray(margin(jnp.asarray(outputs), targets), np.float64)


def _runs(bench: Bench, setting: Setting, keys: Any) -> tuple[list[Any], float]:
    """Each model with the points on its way, and the mean seconds of a run."""
    config, (_, learner, train, _) = setting.config, setting.problem

    def run(key: Any, data: Any) -> Any:
        return fit_trajectory(key, learner, data, points=config.checkpoints)

    @functools.cache
    def program() -> Compiled:
        if choose_fit_loop(learner, train) == "host":
            return Compiled(run, 0.0, None, None)
        return compile_once(run, keys[0], train)

    def make(key: Any) -> Piece:
        found, cost = run_timed(program(), key, train)
        leaves = enumerate(jax.tree.leaves(found))
        arrays = {f"{i:03d}": np.asarray(leaf) for i, leaf in leaves}
        return Piece(arrays, {"seconds": cost.seconds})

    like = jax.eval_shape(learner.model.init, keys[0])
    structure = jax.tree.structure((like, (like, 0, 0)))
    words = training_words(setting.config) | {"checkpoints": config.checkpoints}
    runs, seconds = [], []
    with bench.progress("models of all examples", len(keys)) as advance:
        for i, key in enumerate(keys):
            known_by = words | {"key": [config.seed, EVERYTHING, i]}
            piece = bench.keep("run", functools.partial(make, key), known_by=known_by)
            leaves = [jnp.asarray(piece.arrays[name]) for name in sorted(piece.arrays)]
            runs.append(jax.tree.unflatten(structure, leaves))
            seconds.append(piece.data["seconds"])
            advance(1)
    return runs, float(np.mean(seconds))
