"""Ensembles that outlive a run: trained once, found again by whoever asks for them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.bench import Bench
from experiments.frame.plugins import brought_digest
from experiments.frame.problem import Problem, TrainingConfig
from unlearn_jax import tree
from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.ensembles.train import train_ensemble
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.source import TRAINING
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

EVERYTHING, SUBSETS = range(2)
"""Streams of keys of models that several studies ask for: of all examples, of random
subsets. A study's own begin behind them."""


def training_words(config: TrainingConfig) -> dict[str, Any]:
    """What decides how a model is trained, beside its key and weights.

    Args:
        config: Of any study; ``l2`` is 0 where it has none.
    """
    data, model = config.data, config.model
    return {
        "brought": [brought_digest(name) for name in (model.name, data.name)],
        "model": model,
        "recipe": config.recipe,
        "l2": getattr(config, "l2", 0.0),
        "limit": data.limit,
        "data": data.name,
    }


def stream_keys(seed: int, stream: int, count: int) -> Array:
    """The keys of the first ``count`` members of a stream."""
    base = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.vmap(jax.random.fold_in, (None, 0))(base, jnp.arange(count))


def stream_plan(seed: int, stream: int, weights: np.ndarray) -> Plan:
    """A plan of weights (m, n) whose members of different streams share no key."""
    keys = stream_keys(seed, stream, len(weights))
    return Plan(np.asarray(jax.random.key_data(keys)), weights)


def subset_training(
    problem: Problem, seed: int, masks: np.ndarray
) -> tuple[Learner, Batch, np.ndarray, Plan]:
    """Learner, data, points and plan of models of subsets, alike in every study.

    Args:
        problem: Whose training examples; every model is applied to all of them, then
            to all test examples.
        seed: Of the study.
        masks: (m, n), from :func:`unlearn_jax.data.subsets.subset_masks`.
    """
    sides = [np.asarray(batch.inputs) for batch in problem.dataset.splits]
    plan = stream_plan(seed, SUBSETS, masks)
    return problem.learner, problem.train, np.concatenate(sides), plan


def kept_models(
    bench: Bench, learner: Learner, train: Batch, points: Any, plan: Plan, **given: Any
) -> list[Variables]:
    """The models of :func:`kept_ensemble`, one by one, in the order of the plan."""
    stacked = kept_ensemble(bench, learner, train, points, plan, **given).models()
    # Cut on the host: on the device every shape would be a program of its own.
    stacked = jax.tree.map(np.asarray, stacked)
    models = (tree.member(stacked, i) for i in range(len(plan.weights)))
    return [jax.tree.map(jnp.asarray, model) for model in models]


def kept_ensemble(
    bench: Bench,
    learner: Learner,
    train: Batch,
    points: Any,
    plan: Plan,
    *,
    name: str,
    known_by: Mapping[str, Any],
    members: Any = "auto",
    grows: bool = True,
    **how: Any,
) -> Ensemble:
    """Train or read one ensemble; its folder is named by what it depends on.

    Beside ``known_by`` that is the data's contents, keys, weights, versions, and the
    source that decides a training: an edited method retrains nothing.

    Args:
        bench: Of the run that asks.
        learner: Model, loss, l2 and recipe.
        train: Training examples.
        points: Inputs that every member is applied to.
        plan: Keys and weights of the members.
        name: What progress calls it.
        known_by: What the learner was made from, see :func:`training_words`.
        members: "vmap", "loop", or "auto".
        grows: The folder is that of all ensembles with this first member, so that more
            of it can be asked for later. False: of this plan alone.
        how: Chunk and place of the training, see :func:`train_ensemble`.
    """
    told = slice(0, 1) if grows else slice(None)
    arrays = {
        "keys": np.asarray(plan.keys)[told],
        "weights": np.asarray(plan.weights[told]),
        "points": np.asarray(points),
    }
    digest = digest_arrays(b"", "ensemble", arrays).hex()
    folder = bench.place("models", {**known_by, "members": digest}, code=TRAINING)
    return train_ensemble(
        folder,
        learner,
        train,
        points,
        plan,
        members=members,
        label=name,
        progress=bench.progress,
        **how,
    )
