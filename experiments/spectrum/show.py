"""The table of both matrices, and their eigenvalues per decade."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.spectrum.config import Config
from unlearn_jax.curvature.spectrum import Spectrum, density_on_grid
from unlearn_jax.results.plot_curvature import spectrum_figure
from unlearn_jax.results.table import Table

_WIDTH = 0.12
"""Standard deviation of the smoothing [decades]."""


def show(config: Config, results: Results) -> list[Finding]:
    """One table, one figure."""
    rows, arrays = results.rows, results.arrays
    classes, size = (int(rows.value(name)) for name in ("classes", "parameters"))
    drawn = []
    for name in rows.places("method"):
        nodes, weights, top = (
            arrays[f"{name}/{part}"] for part in ("nodes", "weights", "outliers")
        )
        density = Spectrum(
            jnp.asarray(nodes), jnp.asarray(weights), jnp.asarray(1.0 * size)
        )
        drawn += density_rows(name, density, top, classes)
    caption = (
        f"Eigenvalues per decade of magnitude ({config.probes} random vectors, "
        f"{config.steps} Lanczos steps, smoothed by {_WIDTH:g} decades); ticks: the "
        f"{config.outliers} of largest magnitude; {classes} classes."
    )
    drawing = Drawing("spectrum", spectrum_figure(drawn), drawn, caption)
    return [Finding([_table(config, results, size, classes)], [drawing])]


def density_rows(
    name: str, density: Spectrum, top: np.ndarray, classes: int
) -> list[dict[str, Any]]:
    """Eigenvalues per decade for each sign, and the outliers, as rows to draw."""
    high = float(np.log10(np.max(np.abs(top)))) + 0.5
    grid = np.linspace(high - 8.0, high, 400)
    rows = []
    for sign, word in ((1, "positive"), (-1, "negative")):
        kept = density.nodes * sign > 0
        decades = jnp.log10(jnp.where(kept, jnp.abs(density.nodes), 1.0))
        shares = jnp.where(kept, density.weights, 0)
        own = density._replace(nodes=decades, weights=shares)
        counts = density.size * density_on_grid(own, jnp.asarray(grid), _WIDTH)
        rows += [
            {
                "panel": name,
                "kind": word,
                "eigenvalue": float(sign * 10.0**x),
                "value": float(count),
            }
            for x, count in zip(grid, np.asarray(counts), strict=True)
        ]
    rows += [
        {
            "panel": name,
            "kind": "outlier",
            "eigenvalue": float(value),
            "value": float(classes),
        }
        for value in top
    ]
    return rows


def _table(config: Config, results: Results, size: int, classes: int) -> Table:
    rows = results.rows
    header = (
        "matrix",
        "largest",
        "smallest",
        "trace",
        "negative (% of all)",
        "negative (% of Σ|λ|)",
        f"top {config.outliers} (% of Σ|λ|)",
        "seconds",
    )
    lines = []
    for name in rows.places("method"):
        own = {
            row.metric: rows.value(row.metric, method=name)
            for row in rows.where(method=name)
        }
        lines.append(
            [
                name,
                own["largest_eigenvalue"],
                own["smallest_eigenvalue"],
                f"{own['trace']:.4g} ± {own['trace_stderr']:.2g}",
                100 * own["negative_share"],
                100 * own["negative_mass"],
                100 * own["outlier_mass"],
                own["seconds"],
            ]
        )
    worst = rows.values("largest_residual").max()
    notes = (
        f"{config.net} of {size} parameters, {classes} classes; the mean training loss "
        "without l2, in float64.",
        f"Largest: the true eigenvalue lies within {worst:.1e} of it. Smallest: a Ritz "
        "value, never below the true one.",
        f"Trace: ± standard error over {config.probes} random vectors.",
        "Negative: below 1e-10 of the largest magnitude counts as zero. What the steps "
        "do not resolve near zero stands in one bump of either sign.",
    )
    caption = f"Spectrum of a trained net. {about(results.run)}"
    return table("spectrum", caption, header, lines, notes)
