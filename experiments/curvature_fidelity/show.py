"""A table for each kind of approximation, and errors against seconds."""

from typing import Any

from experiments.curvature_fidelity.config import Config
from experiments.curvature_fidelity.measure import COSTS, KINDS
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.plot_curvature import error_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table

_ERRORS = {"error_gauss_newton": "to Gauss-Newton", "error_hessian": "to Hessian"}
_EACH = {"seconds": "each (s)", "gradients": "each (gradients)"}
_COSTS = {"prepare_seconds": "prepare (s)", **_EACH}
_COLUMNS = {
    "diagonal": {"error": "error to its own aim", **_ERRORS, **_EACH},
    "product": {**_ERRORS, **_COSTS},
    "inverse": {
        **_ERRORS,
        "parameter_distance": "parameters to oracle",
        "disagreement_forget": "outputs, forget",
        "disagreement_test": "outputs, test",
        **_COSTS,
    },
}
_TITLES = {
    "diagonal": ("diagonal", "Diagonals."),
    "product": ("matrix", "Products with gradients of groups of examples."),
    "inverse": ("inverse", "Damped inverses, and influence removal with them."),
}


def show(config: Config, results: Results) -> list[Finding]:
    """Three tables and a figure for each net."""
    found = []
    for net in config.nets:
        own = results.rows.where(net=net)
        end = (
            f"{net} of {own.value('parameters'):.0f} parameters, gradient norm "
            f"{own.value('gradient_norm'):.2g} after training; {about(results.run)}"
        )
        tables = [_table(net, kind, own, end) for kind in KINDS]
        found.append(Finding(tables, [_drawing(net, own)], title=net))
    return found


def _table(net: str, kind: str, rows: Rows, end: str) -> Table:
    columns = _COLUMNS[kind]
    lines = []
    for name in rows.where(kind=kind).places("method"):
        own = rows.where(kind=kind, method=name)
        values = {metric: own.value(metric) for metric in columns}
        # What costs nothing is not done at all.
        shown = [None if m in COSTS and not v else v for m, v in values.items()]
        lines.append([name, *shown])
    first, title = _TITLES[kind]
    header = (first, *columns.values())
    return table(f"{net}-{kind}", f"{title} {end}", header, lines, _notes(kind, rows))


def _notes(kind: str, rows: Rows) -> tuple[str, ...]:
    common = (
        "Errors: norm of the difference over norm of the truth; approximations in "
        "float32, the truth in float64.",
        f"Seconds: compiled and warm, the median of at most 5; one gradient takes "
        f"{rows.value('gradient_seconds') * 1e3:.2g} ms.",
    )
    if kind == "diagonal":
        return (*common, "The number behind a name: labels per example, or probes.")
    if kind == "product":
        return common
    before = {name: rows.where(name)[0].value for name in _COLUMNS["inverse"]}
    return (
        *common,
        "Parameters, outputs: distance of the unlearned model to the oracle, relative "
        "to doing nothing (1); parameters in Euclidean norm, outputs in total "
        "variation.",
        f"Doing nothing: {before['parameter_distance']:.3g} in the parameters, "
        f"{before['disagreement_forget']:.3g} on the forget set, "
        f"{before['disagreement_test']:.3g} on the test set. The oracle starts "
        "training where the original did.",
    )


def _drawing(net: str, rows: Rows) -> Drawing:
    """Error against seconds, a panel for each kind."""
    drawn: list[dict[str, Any]] = [
        {
            "panel": row.at["kind"],
            "approximation": row.at["method"],
            "seconds": row.value,
            "error": rows.value("error_gauss_newton", **row.at),
        }
        for row in rows.where("seconds")
        if row.value
    ]
    caption = (
        f"{net}: relative error to the Gauss-Newton matrix (its diagonal, product, "
        "damped inverse product) against the seconds of one, preparation left out."
    )
    return Drawing(f"{net}-error", error_figure(drawn), drawn, caption)
