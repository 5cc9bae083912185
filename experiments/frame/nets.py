"""A small trained net: float32 to measure with, float64 to know the truth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.rules import at_least, one_of
from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.data.batch import Dataset
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, Params

NETS = ("mlp", "cnn", "linear")
NET_RULES = (*one_of(NETS, "net"), *at_least(1, "width", "epochs"))
"""What a configuration with ``net``, ``width`` and ``epochs`` must fulfil."""

_MOST_PARAMETERS = 6_000


class Net(NamedTuple):
    """Description: how to train and differentiate one model on one data set.

    Attributes:
        name: As in ``NETS``.
        learner: In float32, full batches, so that training is a smooth map from
            weights to parameters.
        objective: In float32.
        double: The same in float64.
        train: Training examples, on the device.
        test: Test examples.
        classes: Number of outputs.
    """

    name: str
    learner: Learner
    objective: Objective
    double: Objective
    train: Batch
    test: Batch
    classes: int


def build_net(
    name: str, dataset: Dataset, *, width: int, epochs: int, l2: float, dense: bool
) -> Net:
    """A net that has not been trained yet.

    Args:
        name: "mlp" (one hidden layer), "cnn" or "linear".
        dataset: From ``load``.
        width: Hidden units; a quarter of it is the cnn's first channels.
        epochs: Steps of full-batch descent.
        l2: Coefficient of half the squared norm of the parameters.
        dense: Whether p × p matrices will be written out, which limits p.

    Raises:
        ValueError: unknown name, width too small, or too many parameters.
    """
    if name not in NETS or width < 1 or epochs < 1:
        raise ValueError(
            f"got net {name!r}, width {width}, epochs {epochs}; expected one of "
            f"{', '.join(NETS)}, and at least 1 of each"
        )
    shape = tuple(dataset.splits.train.inputs.shape[1:])
    options: dict[str, Any] = {
        "mlp": {"widths": (width,)},
        "cnn": {"width": max(width // 4, 1), "hidden": width},
        "linear": {},
    }[name]
    single, double = (
        MODELS[name](shape, dataset.classes, dtype=dtype, **options)
        for dtype in (jnp.float32, jnp.float64)
    )
    size = tree.size(jax.eval_shape(single.init, jax.random.key(0)).params)
    if dense and size > _MOST_PARAMETERS:
        raise ValueError(
            f"the {name} of width {width} has {size} parameters; written out matrices "
            f"allow at most {_MOST_PARAMETERS}: lower the width"
        )
    recipe = Recipe(
        epochs=epochs,
        batch_size=len(dataset.splits.train.targets),
        learning_rate=0.05,
        weight_decay=0.0,
    )
    train, test = (
        Batch(*(jnp.asarray(part) for part in batch)) for batch in dataset.splits
    )
    return Net(
        name,
        Learner(single, cross_entropy, l2, recipe),
        bind(single, {}, cross_entropy, l2),
        bind(double, {}, cross_entropy, l2),
        train,
        test,
        dataset.classes,
    )


def train_net(net: Net, seed: int, *weights: Any) -> list[Params]:
    """Parameters after full-batch descent, for each choice of weights.

    The same seed starts at the same point, so that two choices differ by their weights
    alone.
    """
    key = jax.random.key(seed)
    run = jax.jit(lambda key, data: fit(key, net.learner, data).params)
    chosen = weights or (net.train.weights,)
    trained = [run(key, net.train._replace(weights=jnp.asarray(w))) for w in chosen]
    return jax.block_until_ready(trained)


def to_double(values: Any) -> Any:
    """Floating leaves in float64."""

    def widen(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(jnp.float64) if floating else leaf

    return jax.tree.map(widen, values)


def written_out(operator: LinearOperator, *, block_size: int = 32) -> Array:
    """The matrix of an operator, several columns at once; build it inside ``jit``."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.like)
    flat, unflatten = ravel_pytree(zeros)

    def column(basis: Array) -> Array:
        return ravel_pytree(operator.matvec(unflatten(basis)))[0]

    eye = jnp.eye(flat.size, dtype=flat.dtype)
    matrix = jax.lax.map(column, eye, batch_size=block_size)
    return (matrix + matrix.T) / 2


def flattened(values: Any) -> np.ndarray:
    """One float64 vector of all leaves."""
    return np.asarray(ravel_pytree(to_double(values))[0])
