"""Kernels for GPUs against their formulas in float64 on the host."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_kernels import fisher_diagonal, sign_projection, squared_norm
from unlearn_kernels.fisher_diagonal.triton import square_sum_tiled
from unlearn_kernels.sign_projection.triton import project_signs_tiled
from unlearn_kernels.squared_norm.triton import squared_norm_tiled
from unlearn_kernels.target import target_platform

LAYERS = ((5, 1, 7, 3, 4), (4, 3, 6, 33, 17), (9, 1, 64, 130, 200), (3, 2, 250, 257, 9))
PROJECTIONS = ((37, 203, 96), (64, 4099, 545))
ALLOWED = {"float32": 1e-4, "bfloat16": 3e-2}
"""Of the largest entry; sums run over up to 250 positions."""


def check(smoke: bool) -> None:
    """Print a table of the largest errors; exit with 1 where one is too large."""
    wrong = 0
    print("| operation | form | shape | dtype | largest error ÷ largest entry | |")
    print("|---|---|---|---|---:|---|")
    for name, form, shape, dtype, found, exact in results(smoke):
        error = float(np.max(np.abs(np.float64(found) - exact)) / np.max(np.abs(exact)))
        right = error < ALLOWED[dtype]
        wrong += not right
        word = "right" if right else "WRONG"
        print(f"| {name} | {form} | {shape} | {dtype} | {error:.1e} | {word} |")
    if wrong:
        raise SystemExit(f"{wrong} results are wrong")


def results(smoke: bool) -> Iterator[tuple[str, str, Any, str, Any, Any]]:
    """Operation, form, shape, dtype, what came, and the formula in float64."""
    draw = np.random.default_rng(0)
    gpu = target_platform() == "gpu"
    form = "Triton" if gpu else "Triton, step by step"
    small: dict[str, Any] = {} if gpu else {"interpret": True}
    for shape in LAYERS[: 1 if smoke else None]:
        n, g, t, i, o = shape
        for dtype in ALLOWED:
            a, d = (
                jnp.asarray(draw.normal(size=(n, g, t, size)), dtype) for size in (i, o)
            )
            w = jnp.asarray(draw.uniform(size=n), dtype)
            gradients = np.einsum("ngti,ngto->ngio", *map(wide, (a, d)))
            sums = np.einsum("n,ngio->gio", wide(w), gradients**2)
            norms = np.sum(gradients**2, (1, 2, 3))
            found = jax.jit(lambda *x: square_sum_tiled(*x, **small))(a, d, w)
            yield "square_sum", form, shape, dtype, found, sums
            found = jax.jit(fisher_diagonal.square_sum)(a, d, w)
            yield "square_sum", "default", shape, dtype, found, sums
            found = jax.jit(lambda *x: squared_norm_tiled(*x, **small))(a, d)
            yield "squared_norm", form, shape, dtype, found, norms
            found = jax.jit(squared_norm.squared_norm)(a, d)
            yield "squared_norm", "default", shape, dtype, found, norms
    seeds = jnp.asarray([1, 2], jnp.uint32)
    for shape in PROJECTIONS[: 1 if smoke else None]:
        n, p, width = shape
        places = jnp.arange(p, dtype=jnp.uint32)
        matrix = wide(sign_projection.signs(seeds, places, width))
        for dtype in ALLOWED:
            values = jnp.asarray(draw.normal(size=(n, p)), dtype)
            exact = wide(values) @ matrix
            found = project_signs_tiled(seeds, values, places, width=width, **small)
            yield "project_signs", form, shape, dtype, found, exact
            found = sign_projection.project_signs(seeds, values, places, width=width)
            yield "project_signs", "default", shape, dtype, found, exact


def wide(values: Any) -> Any:
    """float64 on the host."""
    return np.asarray(values.astype("float32"), np.float64)
