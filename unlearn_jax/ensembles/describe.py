"""What an ensemble belongs to: data, points, recipe and model, in a few words."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.plain import plain_config
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


def describe(learner: Learner, data: Batch, points: Any) -> dict[str, Any]:
    """What an ensemble's folder belongs to, as JSON holds it."""
    like = jax.eval_shape(learner.model.init, jax.random.key(0))
    sample = jax.ShapeDtypeStruct((2, *points.shape[1:]), points.dtype)
    outputs = jax.eval_shape(learner.model.apply, like, sample)
    recipe = plain_config(dataclasses.asdict(learner.recipe))
    recipe.pop("loop")  # where the steps run, not what they are
    fields = {"inputs": np.asarray(data.inputs), "targets": np.asarray(data.targets)}
    return {
        "format": 1,
        "x64": bool(jax.config.read("jax_enable_x64")),
        "data": digest_arrays(b"", "data", fields).hex(),
        "points": digest_arrays(b"", "points", {"inputs": np.asarray(points)}).hex(),
        "recipe": recipe,
        "l2": float(learner.l2),
        "model": [
            [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)]
            for path, leaf in jax.tree_util.tree_leaves_with_path(like)
        ],
        "outputs": [list(outputs.shape[1:]), str(outputs.dtype)],
        "probe": _probe(learner, data),
    }


def _probe(learner: Learner, data: Batch) -> list[float]:
    """Numbers that change with the activation or the loss, which shapes do not show."""
    few = (jnp.asarray(data.inputs[:4]), jnp.asarray(data.targets[:4]))
    return [float(value) for value in _probe_program(learner)(*few)]


@functools.lru_cache(maxsize=8)
def _probe_program(learner: Learner) -> Callable[..., Any]:
    @jax.jit
    def look(inputs: Any, targets: Any) -> Any:
        variables = learner.model.init(jax.random.key(0))
        outputs = learner.model.apply(variables, inputs)
        losses = learner.loss(outputs, targets)
        return jnp.sum(jnp.abs(outputs)), jnp.sum(outputs), jnp.sum(losses)

    return look
