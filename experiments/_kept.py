"""Ensembles that outlive a run: trained once, found again by whatever asks for them."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.ensembles.train import train_ensemble
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch


def kept_ensemble(
    config: Any,
    learner: Learner,
    train: Batch,
    points: Any,
    name: str,
    weights: np.ndarray,
    stream: int,
    *,
    grows: bool = True,
) -> Ensemble:
    """Train or read one ensemble; its folder is named by what it depends on.

    Args:
        config: With ``data``, ``model``, ``recipe``, ``seed`` and ``results``, below
            which the folder lies.
        learner: Made from ``config``.
        train: Training examples.
        points: Inputs that every member is applied to.
        name: Begins the folder's name, and is what progress shows.
        weights: (m, n) training weights.
        stream: Members of different streams have different keys.
        grows: The folder is that of all ensembles with this first row, so that more
            members of it can be asked for later. False: of these weights alone.
    """
    told = weights[:1] if grows else weights
    words = {
        "data": [config.data.name, config.data.limit],
        "model": asdict(config.model),
        "recipe": asdict(config.recipe),
        "stream": [config.seed, stream],
        "weights": hashlib.sha256(told.tobytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
    folder = Path(config.results) / "ensembles" / f"{name} {digest[:12]}"
    keys = stream_keys(config.seed, stream, len(weights))
    plan = Plan(np.asarray(jax.random.key_data(keys)), weights)
    return train_ensemble(folder, learner, train, points, plan, label=name)


def stream_keys(seed: int, stream: int, count: int) -> Array:
    """The keys of the first ``count`` members of a stream."""
    base = jax.random.fold_in(jax.random.key(seed), stream)
    return jax.vmap(lambda i: jax.random.fold_in(base, i))(jnp.arange(count))
