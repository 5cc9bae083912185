"""What an ensemble belongs to: data, points, recipe and model, in a few words."""

from typing import Any

import jax
import numpy as np

from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.train.describe import describe_learner
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


def describe(learner: Learner, data: Batch, points: Any) -> dict[str, Any]:
    """What an ensemble's folder belongs to, as JSON holds it."""
    like = jax.eval_shape(learner.model.init, jax.random.key(0))
    sample = jax.ShapeDtypeStruct((2, *points.shape[1:]), points.dtype)
    outputs = jax.eval_shape(learner.model.apply, like, sample)
    fields = {"inputs": np.asarray(data.inputs), "targets": np.asarray(data.targets)}
    return {
        "format": 1,
        "data": digest_arrays(b"", "data", fields).hex(),
        "points": digest_arrays(b"", "points", {"inputs": np.asarray(points)}).hex(),
        "outputs": [list(outputs.shape[1:]), str(outputs.dtype)],
        **describe_learner(learner, data.inputs, data.targets),
    }
