"""Time every operation at every size, and fit powers."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.bench import Bench
from experiments.scaling.config import Config
from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.evaluation.cost import compile_once
from unlearn_jax.evaluation.cost import run as run_timed
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import Row
from unlearn_jax.storage.piece import Piece
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch, Params

_FEATURES, _CLASSES = 64, 10
UNITS = {"seconds": "s", "bytes": "bytes"}


class Setting(NamedTuple):
    """Description: the sizes; inputs are drawn, so there is no data set."""

    config: Config
    dataset: None = None
    title: str = "random inputs"


def _gradient(o: Objective, p: Params, d: Batch, v: Params, size: int) -> Params:
    part = lambda batch, at: jax.grad(o.total)(at, batch)  # noqa: E731 — one line
    return accumulate(part, d, p, batch_size=size)


OPERATIONS: Mapping[str, Callable[..., Params]] = {
    "gradient": _gradient,
    "Fisher diagonal": lambda o, p, d, v, size: empirical_fisher_diagonal(
        o, p, d, batch_size=size
    ),
    "Gauss-Newton product": lambda o, p, d, v, size: over_batches(
        gauss_newton, o, p, d, batch_size=size
    )(v),
    "Hessian product": lambda o, p, d, v, size: over_batches(
        hessian, o, p, d, batch_size=size
    )(v),
}


def build(config: Config) -> Setting:
    """Refuse what makes no sense.

    Raises:
        ValueError: batches larger than the smallest number of examples.
    """
    if config.batch_size > min(config.examples):
        raise ValueError(
            f"batch_size is {config.batch_size}; expected 1 to {min(config.examples)}, "
            f"the smallest number of examples"
        )
    return Setting(config)


def middles(config: Config) -> tuple[int, int]:
    """The number of examples and the width at which the other one varies."""
    return (
        sorted(config.examples)[len(config.examples) // 2],
        sorted(config.widths)[len(config.widths) // 2],
    )


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Seconds and bytes at every size, and the slopes through them."""
    config = setting.config
    some, middle = middles(config)
    places = [("examples", n, middle) for n in sorted(config.examples)]
    places += [("parameters", some, width) for width in sorted(config.widths)]
    rows: list[Row] = []
    with bench.progress("time", len(places) * len(OPERATIONS)) as advance:
        for against, n, width in places:
            for name, operation in OPERATIONS.items():
                make = functools.partial(_piece, config, n, width, operation)
                found = bench.keep(f"{name}/{n}/{width}", make).data
                at = {"method": name, "against": against, "size": found[against]}
                rows += [Row(k, found[k], unit, at) for k, unit in UNITS.items()]
                advance(1)
    yield from rows
    for against in ("examples", "parameters"):
        for what in UNITS:
            for name in OPERATIONS:
                at = {"method": name, "against": against}
                own = [
                    (row.at["size"], row.value)
                    for row in rows
                    if row.metric == what and at.items() <= row.at.items()
                ]
                sizes, values = zip(*own, strict=True)
                yield Row(f"{what}_slope", slope(sizes, values), "1", at)


def _piece(
    config: Config, n: int, width: int, operation: Callable[..., Params]
) -> Piece:
    return Piece({}, timed(config, n, width, operation))


def timed(
    config: Config, n: int, width: int, operation: Callable[..., Params]
) -> dict[str, float]:
    """Sizes, seconds and bytes of one operation."""
    random = np.random.default_rng(config.seed)
    data = Batch(
        jnp.asarray(random.normal(size=(n, _FEATURES)), jnp.float32),
        jnp.asarray(random.integers(0, _CLASSES, n), jnp.int32),
        jnp.ones(n, jnp.float32),
    )
    model = MODELS["mlp"]((_FEATURES,), _CLASSES, widths=(width, width))
    params = model.init(jax.random.key(config.seed)).params
    objective = bind(model, {}, cross_entropy)

    def once(p: Params, d: Batch, v: Params) -> Params:
        return operation(objective, p, d, v, config.batch_size)

    program = compile_once(once, params, data, params)
    _, cost = run_timed(program, params, data, params)
    memory: Any = program.call
    held = memory.memory_analysis().temp_size_in_bytes
    return {
        "examples": float(n),
        "parameters": float(tree.size(params)),
        "seconds": cost.seconds,
        "bytes": float(held),
    }


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope of log value against log size."""
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-12))
    return float(np.polyfit(x, y, 1)[0])
