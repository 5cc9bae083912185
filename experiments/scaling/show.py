"""Slopes in a table, and the points that they were fitted to."""

from typing import Any

import numpy as np

from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.scaling.config import Config
from experiments.scaling.measure import middles
from unlearn_jax.results.plot_curvature import scaling_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table

AGAINST, WHAT = ("examples", "parameters"), ("seconds", "bytes")


def show(config: Config, results: Results) -> list[Finding]:
    """One table, one figure."""
    some, middle = middles(config)
    rows = results.rows
    drawn: list[dict[str, Any]] = []
    for row in rows:
        if row.metric in WHAT:
            at = row.at
            fitted = rows.value(
                f"{row.metric}_slope", method=at["method"], against=at["against"]
            )
            drawn.append(
                {
                    "against": at["against"],
                    "size": at["size"],
                    "operation": at["method"],
                    "what": row.metric,
                    "value": row.value,
                    "slope": fitted,
                }
            )
    caption = (
        "Seconds and bytes of temporaries of one compiled call against examples (left, "
        f"width {middle}) and parameters (right, {some} examples); lines: fitted "
        "powers."
    )
    drawing = Drawing("scaling", scaling_figure(drawn), drawn, caption)
    return [Finding([_table(config, results, rows)], [drawing])]


def _table(config: Config, results: Results, rows: Rows) -> Table:
    some, middle = middles(config)
    header = (
        "operation",
        "seconds, slope in examples",
        "bytes, slope in examples",
        "seconds, slope in parameters",
        "bytes, slope in parameters",
        "seconds at most examples",
        "in gradients",
    )
    most = float(np.max(config.examples))
    last = {
        name: rows.value("seconds", method=name, against="examples", size=most)
        for name in rows.places("method")
    }
    lines = [
        [
            name,
            *(
                f"{_slope(rows, name, against, what):.2f}"
                for against in AGAINST
                for what in WHAT
            ),
            seconds,
            seconds / last["gradient"],
        ]
        for name, seconds in last.items()
    ]
    notes = (
        f"mlp with two hidden layers, batches of {config.batch_size}; examples vary at "
        f"width {middle}, parameters at {some} examples.",
        "Slope: of log value against log size, by least squares. Bytes: temporaries as "
        "the compiler plans them, without arguments and results.",
    )
    return table("scaling", f"Cost. {about(results.run)}", header, lines, notes)


def _slope(rows: Rows, name: str, against: str, what: str) -> float:
    found = rows.value(f"{what}_slope", method=name, against=against)
    return round(found, 2) + 0.0  # no negative zero
