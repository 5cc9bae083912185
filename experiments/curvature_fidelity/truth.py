"""One trained net, its curvature written out in float64, and its oracle."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.curvature_fidelity.approximations import MATRICES
from experiments.curvature_fidelity.config import Config
from experiments.frame.nets import Net, flattened, to_double, train_net, written_out
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.data.batch import take
from unlearn_jax.data.forget import random_set
from unlearn_jax.evaluation.agreement import total_variation
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.evaluation.outputs import Scores
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params


def distances(
    net: Net, oracle: Params, forgotten: np.ndarray
) -> Callable[[Params], dict[str, float]]:
    """How far parameters are from the oracle's, and outputs on two splits."""
    predict = jax.jit(net.objective.predict)
    splits = {"forget": take(net.train, forgotten), "test": net.test}

    def outputs(at: Params) -> dict[str, Scores]:
        return {
            name: Scores(np.asarray(predict(at, x)), np.asarray(y))
            for name, (x, y, _) in splits.items()
        }

    target = outputs(oracle)

    def look(at: Params) -> dict[str, float]:
        found = {"parameter_distance": float(tree.norm(tree.subtract(at, oracle)))}
        for name, scores in outputs(at).items():
            usable = np.all(np.isfinite(scores.outputs))
            found[f"disagreement_{name}"] = (
                total_variation(scores, target[name]) if usable else float("nan")
            )
        return found

    return look


def group_gradients(
    config: Config, net: Net, params: Params, forgotten: np.ndarray
) -> np.ndarray:
    """W_g/W ∇R_g of the forget set, then of random groups of the same size."""
    n, count = net.train.weights.shape[0], len(forgotten)
    slope = jax.jit(jax.grad(net.objective.risk))
    groups = [random_set(config.seed + i, n, count) for i in range(1, config.vectors)]
    found = []
    for group in (forgotten, *groups):
        weights = np.zeros(n, np.float32)
        weights[group] = 1
        own = slope(params, net.train._replace(weights=jnp.asarray(weights)))
        found.append(ravel_pytree(tree.scale(count / n, own))[0])
    return np.stack(found)


def trained(config: Config, net: Net, forgotten: np.ndarray) -> Piece:
    """Flat parameters of the original and of the oracle, which starts as it did."""
    weights = np.ones((2, net.train.weights.shape[0]), np.float32)
    weights[1, forgotten] = 0
    with progress(f"{net.name}: train original and oracle", 1):
        original, oracle = train_net(net, config.seed, *weights)
    flat = {"original": ravel_pytree(original)[0], "oracle": ravel_pytree(oracle)[0]}
    return Piece(flat, {})


def written(config: Config, net: Net, params: Params, forgotten: np.ndarray) -> Piece:
    """What each kind of approximation should give, as in "inverse/hessian".

    In float64, for the "vectors" beside it. Diagonals are without l2, products with it,
    inverses damped too. With the facts: seconds of a gradient and of each matrix.
    """
    at, data = to_double(params), to_double(net.train)
    with progress(f"{net.name}: write the matrices out", 1):
        vectors = group_gradients(config, net, params, forgotten)
        wide = vectors.astype(np.float64)
        gradient, cost = measured(jax.grad(net.objective.risk), params, net.train)
        facts = {
            "parameters": float(tree.size(params)),
            "gradient_norm": float(tree.norm(gradient)),
            "gradient_seconds": cost.seconds,
        }
        squares = jax.jit(functools.partial(_mean_squares, net.double))(at, data)
        exact = {"vectors": vectors, "diagonal/empirical_fisher": flattened(squares)}
        for name, build in MATRICES.items():
            write = functools.partial(_matrix, build, net.double)
            found, cost = measured(write, at, data)
            matrix = np.asarray(found)
            damped = matrix + config.damping * np.eye(len(matrix))
            exact[f"diagonal/{name}"] = np.diag(matrix) - net.objective.l2
            exact[f"product/{name}"] = wide @ matrix
            exact[f"inverse/{name}"] = np.linalg.solve(damped, wide.T).T
            facts[f"{name}_seconds"] = cost.seconds
    return Piece(exact, facts)


def _matrix(build: Any, objective: Objective, p: Params, d: Batch) -> Any:
    return written_out(build(objective, p, d))


def _mean_squares(objective: Objective, p: Params, d: Batch) -> Params:
    """The empirical Fisher's diagonal, by one gradient for each example."""

    def one(xy: Any) -> Params:
        x, y = xy
        slopes = jax.grad(objective.total)(p, Batch(x[None], y[None], jnp.ones(1)))
        return jax.tree.map(jnp.square, slopes)

    each = jax.lax.map(one, (d.inputs, d.targets), batch_size=64)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)
