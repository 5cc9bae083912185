"""Bulk and outliers: the spectrum of the Hessian of a trained net.

Question: how many directions carry curvature, how large is the rest, and how much of it
is negative?
Command: ``python -m experiments.spectrum`` (digits, a minute or two on two CPU cores).
Expect: a bulk near zero with both signs, and about as many outliers as classes (Sagun
et al. 2017, arXiv 1706.04454; Papyan 2019, arXiv 1901.08244), the largest some
thousand times the bulk's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments._config import Data
from experiments._main import main
from experiments._net import Net, build_net, load, to_double, train_net
from experiments._progress import progress
from experiments._study import Drawing, Findings, Note, about, parse, study, table
from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.spectrum import (
    Spectrum,
    density_on_grid,
    extreme_eigenvalues,
    spectral_density,
    spectral_sum,
)
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.results.plot_curvature import spectrum_figure
from unlearn_jax.results.run import Run
from unlearn_jax.solvers.krylov import eigen_residuals, lanczos

MATRICES = {"Hessian": hessian, "Gauss-Newton": gauss_newton}
_WIDTH = 0.12
"""Standard deviation of the smoothing [decades]."""


@dataclass(frozen=True)
class Config:
    """Whose spectrum, and how closely looked at.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        net: "mlp", "cnn" or "linear".
        width: Hidden units; a quarter of it is the cnn's first channels.
        epochs: Steps of full-batch descent.
        l2: Coefficient of half the squared norm of the parameters, in training only:
            the spectrum is that of the mean loss, without l2.
        probes: Random vectors of the density.
        steps: Lanczos steps for each.
        outliers: Largest eigenvalues to find one by one.
        seed: Draws everything.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    net: Literal["mlp", "cnn", "linear"] = "mlp"
    width: int = 64
    epochs: int = 500
    l2: float = 1e-4
    probes: int = 10
    steps: int = 80
    outliers: int = 20
    seed: int = 0
    results: Path = Path("results")


PRESETS = {
    "small": Config(),
    "smoke": Config(
        scale="smoke",
        data=Data(limit=400),
        width=16,
        epochs=200,
        probes=4,
        steps=40,
        outliers=15,
    ),
    "paper": Config(scale="paper", width=256, epochs=2000, probes=20, steps=150),
}


def build(config: Config) -> tuple[str, Net]:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: names or numbers that make no sense.
    """
    dataset = load(config.data)
    net = build_net(
        config.net,
        dataset,
        width=config.width,
        epochs=config.epochs,
        l2=config.l2,
        dense=False,
    )
    shapes = jax.eval_shape(net.learner.model.init, jax.random.key(0)).params
    size = tree.size(shapes)
    most = max(config.steps, 2 * config.outliers + 10)
    if config.probes < 2 or min(config.steps, config.outliers) < 1 or most > size:
        raise ValueError(
            f"expected at least 2 probes, 1 step and 1 outlier, and steps and 2 · "
            f"outliers + 10 up to the {size} parameters; got probes {config.probes}, "
            f"steps {config.steps}, outliers {config.outliers}"
        )
    return dataset.title, net


def command(arguments: Sequence[str]) -> int:
    """Parse, train, look, report."""
    jax.config.update("jax_enable_x64", True)
    config = parse(
        Config, PRESETS, arguments, "python -m experiments.spectrum", __doc__
    )
    title, net = build(config)
    return study("spectrum", config, title, lambda: work(config, net), model=config.net)


def work(config: Config, net: Net) -> Any:
    """Train one net and look at both matrices in float64."""
    with progress("train", 1):
        (params,) = train_net(net, config.seed)
    at, data = to_double(params), to_double(net.train)
    objective = net.double._replace(l2=0.0)
    size = tree.size(params)
    found, rows, lines = {}, [], []
    for name, builder in MATRICES.items():

        def look(key: Any, p: Any, d: Any, builder: Any = builder) -> Any:
            matrix = builder(objective, p, d)
            ends = extreme_eigenvalues(key, matrix, steps=config.steps)
            density = spectral_density(
                key, matrix, probes=config.probes, steps=config.steps
            )
            top = lanczos(
                key, matrix, rank=config.outliers, steps=2 * config.outliers + 10
            )
            return ends, density, top.eigenvalues, eigen_residuals(matrix, top)

        with progress(f"spectrum of the {name}", 1):
            result, cost = measured(look, jax.random.key(config.seed), at, data)
        ends, density, top, residuals = result
        found[name] = facts(density, ends, top)
        found[name]["seconds"] = cost.seconds
        found[name]["largest_eigen_residual"] = float(jnp.max(residuals))
        rows += density_rows(name, density, np.asarray(top), net.classes)
        lines.append((name, found[name]))
    notes = [
        Note(name, metric, value, "s" if metric == "seconds" else "1")
        for name, own in found.items()
        for metric, value in own.items()
    ]

    def show(run: Run) -> Findings:
        made = _table(config, net, size, lines, run)
        caption = (
            f"Eigenvalues per decade of magnitude ({config.probes} random vectors, "
            f"{config.steps} Lanczos steps, smoothed by {_WIDTH:g} decades); ticks: "
            f"the {config.outliers} of largest magnitude; {net.classes} classes."
        )
        drawing = Drawing("spectrum", spectrum_figure(rows), rows, caption)
        return Findings([], [made], [drawing])

    return notes, show


def facts(density: Spectrum, ends: Any, top: Any) -> dict[str, float]:
    """Ends, trace, how much is negative, how large the outliers are."""
    trace = spectral_sum(density)
    size = float(density.size)
    # Eigenvalues this small cannot be told from zero.
    least = 1e-10 * float(jnp.max(jnp.abs(top)))
    negative = spectral_sum(density, lambda x: (x < -least).astype(x.dtype))
    below = spectral_sum(density, lambda x: jnp.where(x < -least, -x, 0))
    mass = spectral_sum(density, jnp.abs)
    return {
        "largest_eigenvalue": float(ends.largest),
        "largest_residual": float(ends.largest_residual),
        "smallest_eigenvalue": float(ends.smallest),
        "smallest_residual": float(ends.smallest_residual),
        "trace": float(trace.value),
        "trace_stderr": float(trace.stderr),
        "negative_share": float(negative.value) / size,
        "negative_mass": float(below.value) / float(mass.value),
        "outlier_mass": float(jnp.sum(jnp.abs(top))) / float(mass.value),
    }


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


def _table(config: Config, net: Net, size: int, lines: Any, run: Run) -> Any:
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
    rows = [
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
        for name, own in lines
    ]
    worst = max(own["largest_residual"] for _, own in lines)
    notes = (
        f"{net.name} of {size} parameters, {net.classes} classes; the mean training "
        "loss without l2, in float64.",
        f"Largest: the true eigenvalue lies within {worst:.1e} of it. Smallest: a Ritz "
        "value, never below the true one.",
        f"Trace: ± standard error over {config.probes} random vectors.",
        "Negative: below 1e-10 of the largest magnitude counts as zero. What the steps "
        "do not resolve near zero stands in one bump of either sign.",
    )
    caption = f"Spectrum of a trained net. {about(run)}"
    return table("spectrum", caption, header, rows, notes)


if __name__ == "__main__":
    main(command)
