"""Tables and figure of the fidelity of curvature."""

from collections.abc import Sequence
from typing import Any

from experiments._study import Drawing, about, table
from unlearn_jax.results.plot_curvature import error_figure
from unlearn_jax.results.run import Run

Row = dict[str, Any]


def tables_of(net: str, rows: Sequence[Row], run: Run) -> list[Any]:
    """A table for each kind of approximation."""
    by_kind = {
        kind: [row for row in rows if row["kind"] == kind]
        for kind in ("diagonal", "product", "inverse", "net")
    }
    facts = by_kind["net"][0]
    costs = ["prepare (s)", "each (s)", "each (gradients)"]
    end = (
        f"{net} of {facts['parameters']:.0f} parameters, gradient norm "
        f"{facts['gradient_norm']:.2g} after training; {about(run)}"
    )
    common = (
        "Errors: norm of the difference over norm of the truth; approximations in "
        "float32, the truth in float64.",
        f"Seconds: compiled and warm, the median of at most 5; one gradient takes "
        f"{facts['gradient_seconds'] * 1e3:.2g} ms.",
    )

    def errors(row: Row) -> list[Any]:
        return [row["error"], row["error_gauss_newton"], row["error_hessian"]]

    made = [
        table(
            f"{net}-diagonal",
            f"Diagonals. {end}",
            [
                "diagonal",
                "error to its own aim",
                "to Gauss-Newton",
                "to Hessian",
                *costs[1:],
            ],
            [
                [r["approximation"], *errors(r), r["seconds"], r["gradients"]]
                for r in by_kind["diagonal"]
            ],
            (*common, "The number behind a name: labels per example, or probes."),
        ),
        table(
            f"{net}-product",
            f"Products with gradients of groups of examples. {end}",
            ["matrix", "to Gauss-Newton", "to Hessian", *costs],
            [
                [
                    r["approximation"],
                    *errors(r)[1:],
                    r["prepare_seconds"] or None,
                    r["seconds"],
                    r["gradients"],
                ]
                for r in by_kind["product"]
            ],
            common,
        ),
    ]
    inverse = by_kind["inverse"]
    before = inverse[0]
    made.append(
        table(
            f"{net}-inverse",
            f"Damped inverses, and influence removal with them. {end}",
            [
                "inverse",
                "to Gauss-Newton",
                "to Hessian",
                "parameters to oracle",
                "outputs, forget",
                "outputs, test",
                *costs,
            ],
            [
                [
                    r["approximation"],
                    *errors(r)[1:],
                    r["parameter_distance"],
                    r["disagreement_forget"],
                    r["disagreement_test"],
                    r["prepare_seconds"] or None,
                    r["seconds"] or None,
                    r["gradients"] or None,
                ]
                for r in inverse
            ],
            (
                *common,
                "Parameters, outputs: distance of the unlearned model to the oracle, "
                "relative to doing nothing (1); parameters in Euclidean norm, outputs "
                "in total variation.",
                f"Doing nothing: {before['parameter_distance_before']:.3g} in the "
                f"parameters, {before['disagreement_forget_before']:.3g} on the forget "
                f"set, {before['disagreement_test_before']:.3g} on the test set. The "
                "oracle starts training where the original did.",
            ),
        )
    )
    return made


def draw(net: str, rows: Sequence[Row]) -> Drawing:
    """Error against seconds, a panel for each kind."""
    shown = [
        {
            "panel": row["kind"],
            "approximation": row["approximation"],
            "seconds": row["seconds"],
            "error": row["error_gauss_newton"],
        }
        for row in rows
        if row["kind"] in ("diagonal", "product", "inverse") and row["seconds"] > 0
    ]
    caption = (
        f"{net}: relative error to the Gauss-Newton matrix (its diagonal, product, "
        "damped inverse product) against the seconds of one, preparation left out."
    )
    return Drawing(f"{net}-error", error_figure(shown), shown, caption)
