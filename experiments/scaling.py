"""Seconds and bytes against the number of examples and of parameters.

Question: does curvature stay affordable as data and nets grow?
Command: ``python -m experiments.scaling`` (a minute or two on two CPU cores).
Expect: seconds in proportion to examples (slope 1) and bytes of temporaries that do not
grow with them (slope 0), since everything runs in batches of one size; both about in
proportion to parameters once the matrices are large. Nothing costs more than a few
gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments._main import main
from experiments._study import Drawing, Findings, Note, about, parse, study, table
from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.evaluation.cost import compile_once
from unlearn_jax.evaluation.cost import run as run_timed
from unlearn_jax.models import MODELS
from unlearn_jax.results.plot_curvature import scaling_figure
from unlearn_jax.results.run import Run
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch, Params

_FEATURES, _CLASSES = 64, 10
Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Which sizes.

    Attributes:
        scale: Which preset the values come from.
        examples: Numbers of examples, at the middle width.
        widths: Units of the mlp's two hidden layers, at the middle number of examples.
        batch_size: Examples held at once.
        seed: Draws inputs and parameters; both are random, since only time counts.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    examples: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batch_size: int = 256
    seed: int = 0
    results: Path = Path("results")


PRESETS = {
    "small": Config(),
    "smoke": Config(
        scale="smoke", examples=(512, 1024, 2048), widths=(32, 64, 128), batch_size=128
    ),
    "paper": Config(
        scale="paper",
        examples=(1024, 4096, 16384, 65536, 262144),
        widths=(128, 256, 512, 1024, 2048, 4096),
    ),
}


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


def build(config: Config) -> None:
    """Refuse what makes no sense.

    Raises:
        ValueError: fewer than two sizes to fit a slope to, or sizes that are none.
    """
    for name in ("examples", "widths"):
        sizes = getattr(config, name)
        if len(set(sizes)) < 2 or min(sizes) < 1:
            raise ValueError(
                f"{name} is {sizes}; a slope needs at least two different sizes above 0"
            )
    if not 1 <= config.batch_size <= min(config.examples):
        raise ValueError(
            f"batch_size is {config.batch_size}; expected 1 to {min(config.examples)}, "
            f"the smallest number of examples"
        )


def command(arguments: Sequence[str]) -> int:
    """Parse, time, fit slopes, report."""
    config = parse(Config, PRESETS, arguments, "python -m experiments.scaling", __doc__)
    build(config)
    title = "random inputs"
    return study("scaling", config, title, lambda: work(config), model="mlp")


def work(config: Config) -> Any:
    """Time every operation at every size."""
    middle = sorted(config.widths)[len(config.widths) // 2]
    some = sorted(config.examples)[len(config.examples) // 2]
    sizes = [("examples", n, middle) for n in sorted(config.examples)]
    sizes += [("parameters", some, width) for width in sorted(config.widths)]
    rows: list[Row] = []
    known: dict[tuple[int, int, str], dict[str, float]] = {}
    with progress("time", len(sizes) * len(OPERATIONS)) as advance:
        for against, n, width in sizes:
            for name, operation in OPERATIONS.items():
                place = (n, width, name)
                if place not in known:
                    known[place] = measure(config, n, width, operation)
                size = known[place][against]
                rows += [
                    {
                        "against": against,
                        "size": size,
                        "operation": name,
                        "what": what,
                        "value": known[place][what],
                    }
                    for what in ("seconds", "bytes")
                ]
                advance(1)
    slopes = {
        (against, what, name): slope(
            [
                r
                for r in rows
                if (r["against"], r["what"], r["operation"]) == (against, what, name)
            ]
        )
        for against in ("examples", "parameters")
        for what in ("seconds", "bytes")
        for name in OPERATIONS
    }
    notes = [
        Note(
            row["operation"],
            row["what"],
            row["value"],
            {"seconds": "s", "bytes": "bytes"}[row["what"]],
            request=f"{row['against']}:{row['size']:.0f}",
        )
        for row in rows
    ]
    notes += [
        Note(name, f"{what}_slope", value, "1", request=against)
        for (against, what, name), value in slopes.items()
    ]

    def show(run: Run) -> Findings:
        for row in rows:
            row["slope"] = slopes[row["against"], row["what"], row["operation"]]
        caption = (
            "Seconds and bytes of temporaries of one compiled call against examples "
            f"(left, width {middle}) and parameters (right, {some} examples); lines: "
            "fitted powers."
        )
        made = _table(config, rows, slopes, middle, some, run)
        drawing = Drawing("scaling", scaling_figure(rows), rows, caption)
        return Findings([], [made], [drawing])

    return notes, show


def measure(
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


def slope(rows: Sequence[Row]) -> float:
    """Least-squares slope of log value against log size."""
    x = np.log([row["size"] for row in rows])
    y = np.log([max(row["value"], 1e-12) for row in rows])
    return float(np.polyfit(x, y, 1)[0])


def _table(
    config: Config, rows: Sequence[Row], slopes: Any, middle: int, some: int, run: Run
) -> Any:
    header = (
        "operation",
        "seconds, slope in examples",
        "bytes, slope in examples",
        "seconds, slope in parameters",
        "bytes, slope in parameters",
        "seconds at most examples",
        "in gradients",
    )
    most = max(r["size"] for r in rows if r["against"] == "examples")
    last = {
        r["operation"]: r["value"]
        for r in rows
        if (r["against"], r["what"], r["size"]) == ("examples", "seconds", most)
    }
    lines = [
        [
            name,
            *(
                f"{round(slopes[against, what, name], 2) + 0.0:.2f}"
                for against in ("examples", "parameters")
                for what in ("seconds", "bytes")
            ),
            last[name],
            last[name] / last["gradient"],
        ]
        for name in OPERATIONS
    ]
    notes = (
        f"mlp with two hidden layers, batches of {config.batch_size}; examples vary at "
        f"width {middle}, parameters at {some} examples.",
        "Slope: of log value against log size, by least squares. Bytes: temporaries as "
        "the compiler plans them, without arguments and results.",
    )
    return table("scaling", f"Cost. {about(run)}", header, lines, notes)


if __name__ == "__main__":
    main(command)
