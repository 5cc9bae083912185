"""Ensembles that outlive a run: trained once, found again by whoever asks for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.frame.study import Bench
from unlearn_jax.ensembles.plan import Plan
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.ensembles.train import train_ensemble
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.source import TRAINING
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


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
        known_by: What the learner was made from.
        members: "vmap", "loop", or "auto".
        grows: The folder is that of all ensembles with this first member, so that more
            of it can be asked for later. False: of this plan alone.
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
    )
