"""The table of both inverses, and one query's predictions."""

from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.truth.config import Config
from experiments.truth.measure import PANELS
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_curvature import truth_figure
from unlearn_jax.results.table import Table

BARS = {"loo_pearson": 0.88, "lds": 0.80}
_COLUMNS = {
    "loo_pearson": "leave-one-out, Pearson ↑",
    "loo_spearman": "leave-one-out, Spearman ↑",
    "lds": "LDS ↑",
}


def show(config: Config, results: Results) -> list[Finding]:
    """One table, one figure."""
    drawn = [
        {"panel": panel, "predicted": float(x), "retrained": float(y)}
        for panel in PANELS
        for x, y in results.arrays[panel].T
    ]
    caption = (
        "Predicted against true change of one test example's loss (the one of median "
        "spread), with the exact inverse; the line is equality. Subsets: both without "
        "their mean."
    )
    drawing = Drawing("truth", truth_figure(drawn), drawn, caption)
    return [Finding([_table(config, results)], [drawing])]


def _table(config: Config, results: Results) -> Table:
    lines = []
    for name, own in results.rows.by("method"):
        prepared = own.values("prepare_seconds")
        met = all(own.value(metric) >= bar for metric, bar in BARS.items())
        lines.append(
            [
                name,
                *(
                    mean_and_error(own.value(m), own.value(f"{m}_stderr"))
                    for m in _COLUMNS
                ),
                prepared[0] if len(prepared) else None,
                own.value("predict_seconds"),
                "yes" if met else "no",
            ]
        )
    header = (
        "inverse",
        *_COLUMNS.values(),
        "prepare (s) ↓",
        "predict (s) ↓",
        "bar met",
    )
    left_out = results.arrays[PANELS[0]].shape[1]
    slope = results.rows.value("gradient_norm")
    notes = (
        f"Softmax regression in float64, l2 = {config.l2:g}; {left_out} "
        f"examples left out one by one, {config.queries} test losses, "
        f"{config.subsets} subsets with a share of {config.share:g}.",
        f"Retrained by Newton's method to gradient norms of at most {slope:.1e}.",
        "Correlations are means over test examples; ± bootstrap standard error over "
        "test examples and retrained models.",
        f"Bar: leave-one-out Pearson ≥ {BARS['loo_pearson']:g}, LDS ≥ {BARS['lds']:g}, "
        "dattri's values for logistic regression on MNIST (arXiv 2410.04555).",
    )
    caption = f"Predicted against retrained test losses. {about(results.run)}"
    return table("truth", caption, header, lines, notes)
