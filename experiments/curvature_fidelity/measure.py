"""Every approximation on every net: how wrong, how long, how far from the oracle."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.curvature_fidelity.approximations import (
    MATRICES,
    Approximation,
    Point,
    diagonals,
    inverses,
    products,
    states,
)
from experiments.curvature_fidelity.config import Config
from experiments.curvature_fidelity.truth import distances, trained, written
from experiments.frame.bench import Bench
from experiments.frame.nets import Net, build_net, flattened
from experiments.frame.problem import load
from experiments.frame.requests import draw_request, parse_request
from unlearn_jax import tree
from unlearn_jax.data.batch import Batch, Dataset
from unlearn_jax.evaluation.cost import compile_once, measured
from unlearn_jax.evaluation.cost import run as run_timed
from unlearn_jax.results.rows import Row
from unlearn_jax.types import Params

KINDS = {"diagonal": diagonals, "product": products, "inverse": inverses}
DENSE = {"gauss_newton": "dense Gauss-Newton", "hessian": "dense Hessian"}
"""What solving with a matrix that was written out is called."""
ERRORS = ("error", *(f"error_{name}" for name in MATRICES))
COSTS = ("prepare_seconds", "seconds", "gradients")
DISTANCES = ("parameter_distance", "disagreement_forget", "disagreement_test")


class Setting(NamedTuple):
    """Description: nets that are not trained yet, and what they are to forget."""

    config: Config
    dataset: Dataset
    nets: list[Net]
    forgotten: np.ndarray


class Case(NamedTuple):
    """Description: one trained net, and what its approximations share.

    Attributes:
        config: What was asked.
        net: Which one.
        params: Of the original.
        exact: See :func:`written`.
        facts: Of the net, and how far doing nothing is from the oracle.
        distances: To the oracle, by parameters.
        prepared: A state and its seconds, by name.
    """

    config: Config
    net: Net
    params: Params
    exact: dict[str, np.ndarray]
    facts: dict[str, float]
    distances: Callable[[Params], dict[str, float]]
    prepared: Callable[[str], tuple[Any, float]]

    def unflatten(self, vector: Any) -> Params:
        """A tree like the parameters."""
        return ravel_pytree(self.params)[1](jnp.asarray(vector, jnp.float32))


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: data, a net or a forget set that cannot be had.
    """
    dataset = load(config.data)
    asked = parse_request(config.request)
    forgotten = draw_request(asked, dataset, seed=config.seed)
    sizes = {"width": config.width, "epochs": config.epochs, "l2": config.l2}
    nets = [build_net(name, dataset, **sizes, dense=True) for name in config.nets]
    return Setting(config, dataset, nets, forgotten)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """A net's facts, then rows for each approximation, kind by kind."""
    for net in setting.nets:
        case = _case(bench, setting, net)
        rows = [Row(k, v, _unit(k)) for k, v in case.facts.items()]
        for kind, table in KINDS.items():
            entries = table(setting.config.effort)
            with bench.progress(f"{net.name}: {kind}s", len(entries)) as advance:
                for name, entry in entries.items():
                    at = {"kind": kind, "method": name}
                    rows += bench.rows(
                        f"{net.name}/{kind}/{name}",
                        functools.partial(_applied, case, entry, at),
                        failed=functools.partial(_failed, at),
                    )
                    advance(1)
        for matrix, title in DENSE.items():
            found = case.exact[f"inverse/{matrix}"]
            seconds = (case.facts[f"{matrix}_seconds"], 0.0)
            at = {"kind": "inverse", "method": title}
            rows += _rows(case, found, matrix, seconds, at)
        yield from (row._replace(at={"net": net.name, **row.at}) for row in rows)


def _case(bench: Bench, setting: Setting, net: Net) -> Case:
    config, forgotten = setting.config, setting.forgotten
    train = functools.partial(trained, config, net, forgotten)
    both = bench.keep(f"{net.name}/trained", train).arrays
    shapes = jax.eval_shape(net.learner.model.init, jax.random.key(0)).params
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    _, unflatten = ravel_pytree(zeros)
    params, oracle = (unflatten(jnp.asarray(both[k])) for k in ("original", "oracle"))
    write = functools.partial(written, config, net, params, forgotten)
    exact, facts = bench.keep(f"{net.name}/written out", write)
    far = distances(net, oracle, forgotten)
    prepared = functools.cache(functools.partial(_prepared, config, net, params))
    return Case(config, net, params, exact, facts | far(params), far, prepared)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ over everything at once."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _unit(metric: str) -> str:
    own = {"gradients": "gradients"}
    return "s" if metric.endswith("seconds") else own.get(metric, "1")


def _failed(at: dict[str, Any], why: str) -> Iterable[Row]:
    metrics = (*ERRORS, *COSTS, *(DISTANCES if at["kind"] == "inverse" else ()))
    return [Row(metric, None, _unit(metric), at, why) for metric in metrics]


def _prepared(config: Config, net: Net, params: Params, name: str) -> tuple[Any, float]:
    if not name:
        return (), 0.0
    make = states(config.effort)[name]

    def prepare(key: Any, p: Params, d: Batch) -> Any:
        return make(key, Point(net.objective, p, d, config.damping))

    state, cost = measured(prepare, jax.random.key(config.seed), params, net.train)
    return state, cost.seconds


def _applied(case: Case, entry: Approximation, at: dict[str, Any]) -> Iterator[Row]:
    """Rows of one approximation, on all vectors."""
    config, net, diagonal = case.config, case.net, at["kind"] == "diagonal"
    vectors = [case.unflatten(vector) for vector in case.exact["vectors"]]
    if diagonal:
        vectors = [jax.random.key(config.seed)]

    def apply(s: Any, p: Params, d: Batch, v: Any) -> Params:
        point = Point(net.objective, p, d, config.damping)
        return entry.apply(s, point.bare if diagonal else point, v)

    state, prepare = case.prepared(entry.state)
    given = (state, case.params, net.train)
    program = compile_once(apply, *given, vectors[0])
    first, cost = run_timed(program, *given, vectors[0])
    images = [first, *(program.call(*given, v) for v in vectors[1:])]
    found = np.stack([flattened(image) for image in images])
    yield from _rows(case, found, entry.target, (prepare, cost.seconds), at)


def _rows(
    case: Case,
    found: np.ndarray,
    target: str,
    seconds: tuple[float, float],
    at: dict[str, Any],
) -> Iterator[Row]:
    for metric, aim in zip(ERRORS, (target, *MATRICES), strict=True):
        exact = case.exact[f"{at['kind']}/{aim}"]
        yield Row(metric, distance(found, exact), at=at)
    costs = (*seconds, seconds[1] / case.facts["gradient_seconds"])
    for metric, value in zip(COSTS, costs, strict=True):
        yield Row(metric, value, _unit(metric), at)
    if at["kind"] == "inverse":
        step = case.unflatten(found[0])
        after = case.distances(tree.add(case.params, step))
        for metric in DISTANCES:
            # Relative to doing nothing.
            before = case.facts[metric]
            yield Row(metric, after[metric] / before if before else math.nan, at=at)
