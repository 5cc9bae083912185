"""Train one net and look at both of its matrices in float64."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.frame.bench import Bench
from experiments.frame.nets import Net, build_net, to_double, train_net
from experiments.frame.problem import load
from experiments.frame.progress import progress
from experiments.spectrum.config import Config
from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.spectrum import (
    Spectrum,
    extreme_eigenvalues,
    spectral_density,
    spectral_sum,
)
from unlearn_jax.data.batch import Dataset
from unlearn_jax.evaluation.cost import measured
from unlearn_jax.results.rows import Row
from unlearn_jax.solvers.krylov import eigen_residuals, lanczos
from unlearn_jax.storage.piece import Piece

MATRICES = {"Hessian": hessian, "Gauss-Newton": gauss_newton}


class Setting(NamedTuple):
    """Description: data and net, before anything is trained."""

    config: Config
    dataset: Dataset
    net: Net
    size: int


def build(config: Config) -> Setting:
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
    if most > size:
        raise ValueError(
            f"steps is {config.steps} and outliers {config.outliers}; expected steps "
            f"and 2 · outliers + 10 of at most the {size} parameters"
        )
    return Setting(config, dataset, net, size)


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number of both matrices; their densities are published."""
    params: list[Any] = []

    def trained() -> Any:
        if not params:
            with bench.progress("train", 1):
                params.extend(train_net(setting.net, setting.config.seed))
        return params[0]

    for name, builder in MATRICES.items():
        look = functools.partial(_look, setting, trained, name, builder)
        found = bench.keep(name, look)
        for array, values in found.arrays.items():
            bench.publish(f"{name}/{array}", values)
        for metric, value in found.data.items():
            unit = "s" if metric == "seconds" else "1"
            yield Row(metric, value, unit, {"method": name})
    yield Row("parameters", float(setting.size))
    yield Row("classes", float(setting.net.classes))


def _look(
    setting: Setting, trained: Callable[[], Any], name: str, builder: Callable[..., Any]
) -> Piece:
    """Ends, density and outliers of one matrix."""
    config, net = setting.config, setting.net
    at, data = to_double(trained()), to_double(net.train)
    objective = net.double._replace(l2=0.0)

    def look(key: Any, p: Any, d: Any) -> Any:
        matrix = builder(objective, p, d)
        ends = extreme_eigenvalues(key, matrix, steps=config.steps)
        density = spectral_density(
            key, matrix, probes=config.probes, steps=config.steps
        )
        top = lanczos(key, matrix, rank=config.outliers, steps=2 * config.outliers + 10)
        return ends, density, top.eigenvalues, eigen_residuals(matrix, top)

    key = jax.random.key(config.seed)
    with progress(f"spectrum of the {name}", 1):
        (ends, density, top, residuals), cost = measured(look, key, at, data)
    numbers = facts(density, ends, top) | {
        "seconds": cost.seconds,
        "largest_eigen_residual": float(jnp.max(residuals)),
    }
    arrays = {
        "nodes": np.asarray(density.nodes),
        "weights": np.asarray(density.weights),
        "outliers": np.asarray(top),
    }
    return Piece(arrays, numbers)


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
