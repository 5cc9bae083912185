"""Retrain without examples, predict the same by influence, compare."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.bench import Bench
from experiments.frame.nets import to_double, written_out
from experiments.frame.problem import load
from experiments.frame.progress import progress
from experiments.truth.config import Config
from experiments.truth.minimum import minimise
from unlearn_jax import tree
from unlearn_jax.attribution.influence import influence_on_outputs
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.data.batch import Dataset, take
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.evaluation.datamodelling_score import group_effects, score
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Array, Batch, Params

INVERSES = ("dense", "cg")
PANELS = ("one example left out", "random subsets")
SCORES = {
    "loo_pearson": (PANELS[0], False),
    "loo_spearman": (PANELS[0], True),
    "lds": (PANELS[1], True),
}
"""Metric -> what is correlated, and whether by ranks."""
_MOST_PARAMETERS = 12_000
_BLOCK = 64
"""Models retrained at once."""


class Setting(NamedTuple):
    """Description: data in float64, a convex objective, the models to retrain.

    ``weights`` has a row for each: all examples, each of ``left_out`` missing, subsets.
    """

    config: Config
    dataset: Dataset
    objective: Objective
    start: Params
    train: Batch
    queries: Batch
    left_out: np.ndarray
    weights: np.ndarray


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: an unknown or absent data set, or numbers that do not fit it.
    """
    dataset = load(config.data)
    train, test = dataset.splits
    n, tests = len(train.targets), len(test.targets)
    if config.queries > tests or not (
        config.leave_outs == 0 or 3 <= config.leave_outs <= n
    ):
        raise ValueError(
            f"{dataset.title} has {n} training and {tests} test examples; queries is "
            f"{config.queries} and leave_outs {config.leave_outs} (0: all, or 3 to {n})"
        )
    shape = train.inputs.shape[1:]
    model = MODELS["linear"](shape, dataset.classes, dtype=jnp.float64)
    start = model.init(jax.random.key(0)).params
    if tree.size(start) > _MOST_PARAMETERS:
        raise ValueError(
            f"a dense inverse of {tree.size(start)} parameters is too large, at most "
            f"{_MOST_PARAMETERS}; take digits or fashion_mnist"
        )
    random = np.random.default_rng(config.seed)
    left_out = np.sort(random.permutation(n)[: config.leave_outs or n])
    asked = take(test, np.sort(random.permutation(tests)[: config.queries]))
    weights = np.ones((1 + len(left_out) + config.subsets, n))
    weights[1 + np.arange(len(left_out)), left_out] = 0
    random = np.random.default_rng(config.seed + 1)
    for row in weights[1 + len(left_out) :]:
        row[random.permutation(n)[max(1, round(config.share * n)) :]] = 0
    return Setting(
        config,
        dataset,
        bind(model, {}, cross_entropy, config.l2),
        start,
        to_double(train),
        to_double(asked),
        left_out,
        weights,
    )


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Scores of each inverse against the retrained models; one query is published."""
    trained = functools.cache(functools.partial(_trained, setting))
    block = jax.jit(functools.partial(_block, setting.objective))
    m, n = setting.weights.shape
    size = min(_BLOCK, m)
    # Filled up with models of all examples, so that one program does for all blocks.
    filled = np.ones((-(-m // size), size, n))
    filled.reshape(-1, n)[:m] = setting.weights
    parts = []
    for number, weights in enumerate(filled, start=1):
        title = f"retrain, {number} of {len(filled)}"
        make = functools.partial(_retrained, setting, trained, block, weights, title)
        parts.append(bench.keep(title, make).arrays)
    losses = np.concatenate([part["losses"] for part in parts])[:m]
    for name in INVERSES:
        predict = functools.partial(_predicted, setting, trained, name)
        found = bench.keep(f"predict with {name}", predict)
        panels = compared(setting, found.arrays["effects"], losses)
        if name == "dense":
            spread = np.std(panels[PANELS[0]][1], axis=1)
            query = np.argsort(spread)[len(spread) // 2]
            for panel, pair in panels.items():
                bench.publish(panel, np.stack([side[query] for side in pair]))
        random = np.random.default_rng(setting.config.seed + 2)
        drawn = {"bootstrap": setting.config.bootstrap, "seed": random}
        for metric, (panel, ranks) in SCORES.items():
            value, error = score(*panels[panel], ranks=ranks, **drawn)
            yield Row(metric, value, at={"method": name})
            yield Row(f"{metric}_stderr", error, at={"method": name})
        for metric, seconds in found.data.items():
            yield Row(metric, seconds, "s", {"method": name})
    slopes = [float(part["slopes"].max()) for part in parts]
    yield Row("gradient_norm", max(slopes))


def compared(
    setting: Setting, effects: np.ndarray, losses: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predicted and true changes of every query, a column for each model.

    Args:
        setting: What was asked.
        effects: (queries, n) effect of each example's weight on each loss.
        losses: (models, queries) of the models of ``setting.weights``.
    """
    out = setting.left_out
    full, without, subsets = np.split(losses, [1, 1 + len(out)])
    masks = setting.weights[1 + len(out) :]
    one, several = PANELS
    return {
        one: (-effects[:, out], (without - full).T),
        several: (
            group_effects(effects, masks - masks.mean(0)),
            (subsets - subsets.mean(0)).T,
        ),
    }


def matrix_product(matrix: Any, like: Params) -> Callable[[Any], Any]:
    """The map from a tree like ``like`` to the matrix times it."""
    _, unflatten = ravel_pytree(like)
    return lambda v: unflatten(matrix @ ravel_pytree(v)[0])


def _trained(setting: Setting) -> tuple[Params, Array, float]:
    """The minimum on everything, the inverse Hessian there, and its seconds."""
    objective = setting.objective
    with progress("train on everything", 1):
        fit = jax.jit(lambda s, d: minimise(objective, s, d).params)
        params = jax.block_until_ready(fit(setting.start, setting.train))

    def invert(p: Params, d: Batch) -> Array:
        written = written_out(hessian(objective, p, d), block_size=256)
        factor = jax.scipy.linalg.cho_factor(written)
        return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(written)))

    with progress(f"invert the Hessian ({tree.size(params)} parameters)", 1):
        inverse, cost = measured(invert, params, setting.train)
    return params, inverse, cost.seconds


def _block(
    objective: Objective, weights: Array, at: Params, data: Batch, asked: Batch, m: Any
) -> Any:
    """Losses and gradient norm of the minimum for every row of weights."""
    near = matrix_product(m, at)

    def one(own: Array) -> Any:
        part = data._replace(weights=own)
        found = minimise(objective, at, part, preconditioner=near)
        return objective.example_losses(found.params, asked), found.slope

    return jax.vmap(one)(weights)


def _retrained(
    setting: Setting,
    trained: Callable[[], Any],
    block: Callable[..., Any],
    weights: np.ndarray,
    title: str,
) -> Piece:
    params, inverse, _ = trained()
    with progress(title, 1):
        losses, slopes = jax.block_until_ready(
            block(weights, params, setting.train, setting.queries, inverse)
        )
    return Piece({"losses": losses, "slopes": slopes}, {})


def _predicted(setting: Setting, trained: Callable[[], Any], name: str) -> Piece:
    params, inverse, prepared = trained()
    objective, dense = setting.objective, name == "dense"

    def predict(p: Params, d: Batch, q: Batch, m: Array) -> Array:
        curved, product = hessian(objective, p, d), matrix_product(m, p)

        def solve(v: Any) -> Any:
            if dense:
                return product(v)
            return conjugate_gradient(curved, v, tol=1e-8, max_steps=2000).value

        return influence_on_outputs(objective, p, d, q, None, solve)

    with progress(f"predict with {name}", 1):
        found, cost = measured(predict, params, setting.train, setting.queries, inverse)
    seconds = {"prepare_seconds": prepared} if dense else {}
    return Piece({"effects": found}, seconds | {"predict_seconds": cost.seconds})
