"""What every approximation of curvature is measured by, on one trained net."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments._curvatures import (
    Approximation,
    Effort,
    diagonals,
    inverses,
    products,
    states,
)
from experiments.frame.nets import (
    Net,
    flattened,
    timed_once,
    to_double,
    train_net,
    written_out,
)
from experiments.frame.problem import Data
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.data.forget import random_set
from unlearn_jax.evaluation.agreement import total_variation
from unlearn_jax.evaluation.cost import compile_once, measured, run
from unlearn_jax.evaluation.outputs import Scores
from unlearn_jax.types import Batch, Params

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """What is compared.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        nets: Any of "mlp", "cnn", "linear".
        width: Hidden units; a quarter of it is the cnn's first channels.
        epochs: Steps of full-batch descent.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        damping: Added to the curvature before it is inverted.
        forget: Training examples to forget, drawn at random.
        vectors: Gradients that products and inverses are tried on.
        effort: How much work the approximations may do.
        seed: Draws the start of training and everything else.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    nets: tuple[Literal["mlp", "cnn", "linear"], ...] = ("mlp", "cnn")
    width: int = 16
    epochs: int = 2000
    l2: float = 5e-3
    damping: float = 1e-2
    forget: int = 72
    vectors: int = 5
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    results: Path = Path("results")


class Truth(NamedTuple):
    """Value: the curvature written out in float64.

    Attributes:
        matrices: "gauss_newton" and "hessian", l2 included, undamped.
        diagonals: "gauss_newton", "hessian", "empirical_fisher", l2 left out.
        seconds: To write out each matrix.
    """

    matrices: dict[str, np.ndarray]
    diagonals: dict[str, np.ndarray]
    seconds: dict[str, float]


def one_net(config: Config, net: Net) -> list[Row]:
    """Train, write out, compare: a row for each approximation."""
    n = net.train.weights.shape[0]
    chosen = random_set(config.seed, n, config.forget)
    weights = np.ones(n, np.float32)
    weights[chosen] = 0
    with progress(f"{net.name}: train original and oracle", 2):
        params, oracle = train_net(net, config.seed, np.ones_like(weights), weights)
    with progress(f"{net.name}: write the matrices out", 3):
        truth = write_out(net, params)
    gradient, gradient_cost = measured(
        lambda p, d: jax.grad(net.objective.risk)(p, d), params, net.train
    )
    slope = float(tree.norm(gradient))
    rows = diagonal_rows(config, net, params, truth)
    rows += product_rows(config, net, params, truth, oracle, weights)
    for row in rows:
        row["gradients"] = row["seconds"] / gradient_cost.seconds
    size = flattened(params).size
    about_net = {"parameters": float(size), "gradient_norm": slope}
    about_net |= {"gradient_seconds": gradient_cost.seconds}
    about_net |= {f"{k}_seconds": v for k, v in truth.seconds.items()}
    rows.append({"kind": "net", "approximation": "gradient", **about_net})
    return rows


def write_out(net: Net, params: Params) -> Truth:
    """Hessian, Gauss-Newton matrix and the empirical Fisher's diagonal in float64."""
    at, data = to_double(params), to_double(net.train)
    matrices, seconds = {}, {}
    for name, builder in (("gauss_newton", gauss_newton), ("hessian", hessian)):
        written, spent = timed_once(
            lambda p, d, builder=builder: written_out(builder(net.double, p, d)),
            at,
            data,
        )
        matrices[name], seconds[name] = np.asarray(written), spent

    def squares(p: Params, d: Batch) -> Any:
        def one(x: Any, y: Any) -> Any:
            example = Batch(x[None], y[None], jnp.ones(1))
            slopes = jax.grad(net.double.total)(p, example)
            return jax.tree.map(jnp.square, slopes)

        each = jax.lax.map(lambda xy: one(*xy), (d.inputs, d.targets), batch_size=64)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)

    found = {k: np.diag(m) - net.objective.l2 for k, m in matrices.items()}
    found["empirical_fisher"] = flattened(jax.jit(squares)(at, data))
    return Truth(matrices, found, seconds)


def diagonal_rows(config: Config, net: Net, params: Params, truth: Truth) -> list[Row]:
    """Relative errors of every diagonal."""
    rows = []
    table_of = diagonals(config.effort)
    with progress(f"{net.name}: diagonals", len(table_of)) as advance:
        for name, entry in table_of.items():
            objective = net.objective._replace(l2=0.0)
            value, cost = measured(
                lambda k, p, d, make=entry.make, o=objective: make(k, o, p, d),
                jax.random.key(config.seed),
                params,
                net.train,
            )
            flat = flattened(value)
            rows.append(
                {
                    "kind": "diagonal",
                    "approximation": name,
                    "error": distance(flat, truth.diagonals[entry.target]),
                    "error_gauss_newton": distance(
                        flat, truth.diagonals["gauss_newton"]
                    ),
                    "error_hessian": distance(flat, truth.diagonals["hessian"]),
                    "prepare_seconds": 0.0,
                    "seconds": cost.seconds,
                }
            )
            advance(1)
    return rows


def product_rows(
    config: Config,
    net: Net,
    params: Params,
    truth: Truth,
    oracle: Params,
    weights: np.ndarray,
) -> list[Row]:
    """Errors of products, of inverse products, and of what unlearning makes of them."""
    vectors = group_gradients(config, net, params, weights)
    prepared = prepare(config, net, params)
    judge = Judge(net, params, oracle, weights)
    matrices = truth.matrices
    shift = config.damping * np.eye(len(matrices["hessian"]))
    wide = np.stack([flattened(v) for v in vectors])
    targets = {
        "product": {name: wide @ matrix for name, matrix in matrices.items()},
        "inverse": {
            name: np.linalg.solve(matrix + shift, wide.T).T
            for name, matrix in matrices.items()
        },
    }
    rows = []
    for kind, entries in (
        ("product", products(config.effort)),
        ("inverse", inverses(config.effort)),
    ):
        with progress(f"{net.name}: {kind}s", len(entries)) as advance:
            for name, entry in entries.items():
                images, seconds = _apply(config, net, params, entry, prepared, vectors)
                flat = np.stack([flattened(image) for image in images])
                own = {k: distance(flat, t) for k, t in targets[kind].items()}
                row = {
                    "kind": kind,
                    "approximation": name,
                    "error": own[entry.target],
                    "error_gauss_newton": own["gauss_newton"],
                    "error_hessian": own["hessian"],
                    "prepare_seconds": prepared[entry.state][1],
                    "seconds": seconds,
                }
                if kind == "inverse":
                    row |= judge(images[0])
                rows.append(row)
                advance(1)
    for name, target in targets["inverse"].items():
        _, unflatten = ravel_pytree(params)
        words = {"gauss_newton": "dense Gauss-Newton", "hessian": "dense Hessian"}
        own = {k: distance(target, t) for k, t in targets["inverse"].items()}
        rows.append(
            {
                "kind": "inverse",
                "approximation": words[name],
                "error": own[name],
                "error_gauss_newton": own["gauss_newton"],
                "error_hessian": own["hessian"],
                "prepare_seconds": truth.seconds[name],
                "seconds": 0.0,
                **judge(unflatten(jnp.asarray(target[0], jnp.float32))),
            }
        )
    return rows


def group_gradients(
    config: Config, net: Net, params: Params, weights: np.ndarray
) -> list[Params]:
    """W_g/W ∇R_g of the forget set, then of random groups of the same size."""
    n = len(weights)
    groups = [np.asarray(1 - weights)]
    for number in range(1, config.vectors):
        group = np.zeros(n, np.float32)
        group[random_set(config.seed + number, n, config.forget)] = 1
        groups.append(group)
    slope = jax.jit(jax.grad(net.objective.risk))
    share = config.forget / n
    return [
        tree.scale(share, slope(params, net.train._replace(weights=jnp.asarray(g))))
        for g in groups
    ]


def prepare(config: Config, net: Net, params: Params) -> dict[str, tuple[Any, float]]:
    """States by name with the seconds of each; the empty one costs nothing."""
    prepared: dict[str, tuple[Any, float]] = {"": ((), 0.0)}
    makers = states(config.effort)
    key = jax.random.key(config.seed)
    with progress(f"{net.name}: prepare", len(makers)) as advance:
        for name, make in makers.items():
            state, cost = measured(
                lambda k, p, d, make=make: make(k, net.objective, p, d, config.damping),
                key,
                params,
                net.train,
            )
            prepared[name] = (state, cost.seconds)
            advance(1)
    return prepared


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ over everything at once."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _apply(
    config: Config,
    net: Net,
    params: Params,
    entry: Approximation,
    prepared: dict[str, tuple[Any, float]],
    vectors: Sequence[Params],
) -> tuple[list[Params], float]:
    state = prepared[entry.state][0]

    def one(s: Any, p: Params, d: Batch, v: Params) -> Params:
        return entry.apply(s, net.objective, p, d, v, config.damping)

    program = compile_once(one, state, params, net.train, vectors[0])
    first, cost = run(program, state, params, net.train, vectors[0])
    rest = [program.call(state, params, net.train, v) for v in vectors[1:]]
    return [first, *rest], cost.seconds


class Judge:
    """How near to the oracle a step brings the original; doing nothing counts 1."""

    def __init__(self, net: Net, params: Params, oracle: Params, weights: np.ndarray):
        self._params, self._oracle = params, oracle
        forgotten = np.flatnonzero(weights == 0)
        predict = jax.jit(net.objective.predict)
        inputs = {"forget": net.train.inputs[forgotten], "test": net.test.inputs}
        self._targets = {
            "forget": np.asarray(net.train.targets)[forgotten],
            "test": np.asarray(net.test.targets),
        }

        def outputs(at: Params) -> dict[str, np.ndarray]:
            return {k: np.asarray(predict(at, x)) for k, x in inputs.items()}

        self._outputs = outputs
        self._target = outputs(oracle)
        self._before = self._measure(params)

    def _measure(self, at: Params) -> dict[str, float]:
        outputs = self._outputs(at)
        gap = float(tree.norm(tree.subtract(at, self._oracle)))
        found = {"parameter_distance": gap}
        for split, target in self._target.items():
            usable = np.all(np.isfinite(outputs[split]))
            labels = self._targets[split]
            value = float("nan")
            if usable:
                value = total_variation(
                    Scores(outputs[split], labels), Scores(target, labels)
                )
            found[f"disagreement_{split}"] = value
        return found

    def __call__(self, step: Params) -> dict[str, float]:
        after = self._measure(tree.add(self._params, step))
        return {
            k: after[k] / before if before else float("nan")
            for k, before in self._before.items()
        } | {f"{k}_before": before for k, before in self._before.items()}
