"""What a learner is, in a few words: for folders and names that belong to it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.storage.plain import plain_config
from unlearn_jax.train.recipe import Learner


def describe_learner(learner: Learner, inputs: Any, targets: Any) -> dict[str, Any]:
    """Recipe, l2, model and loss, as JSON holds them.

    Args:
        learner: What is trained.
        inputs: Some inputs; the first four are looked at.
        targets: Theirs.

    Returns:
        Among it ``probe``: numbers that change with the activation or the loss, which
        shapes do not show.
    """
    like = jax.eval_shape(learner.model.init, jax.random.key(0))
    recipe = plain_config(dataclasses.asdict(learner.recipe))
    recipe.pop("loop")  # where the steps run, not what they are
    few = (jnp.asarray(inputs[:4]), jnp.asarray(targets[:4]))
    return {
        "x64": bool(jax.config.read("jax_enable_x64")),
        "recipe": recipe,
        "l2": float(learner.l2),
        "model": [
            [jax.tree_util.keystr(path), list(leaf.shape), str(leaf.dtype)]
            for path, leaf in jax.tree_util.tree_leaves_with_path(like)
        ],
        "probe": [float(value) for value in _probe_program(learner)(*few)],
    }


@functools.lru_cache(maxsize=8)
def _probe_program(learner: Learner) -> Callable[..., Any]:
    @jax.jit
    def look(inputs: Any, targets: Any) -> Any:
        variables = learner.model.init(jax.random.key(0))
        outputs = learner.model.apply(variables, inputs)
        losses = learner.loss(outputs, targets)
        return jnp.sum(jnp.abs(outputs)), jnp.sum(outputs), jnp.sum(losses)

    return look
