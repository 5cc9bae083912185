"""Times of every implementation of one operation, as a table.

    python -m unlearn_kernels.bench NAME [--seconds 20]

For each shape worth timing: milliseconds of the forward pass and of the gradient with
respect to all arrays, warm, the median of ten calls (of fewer where they are slow, see
``--seconds``), outside of a loop and per iteration inside of ``lax.scan``. The ratio is
the reference's time outside of a loop over the default implementation's; in brackets
the same inside.
"""

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_kernels import (
    convolution,
    fisher_diagonal,
    pooling,
    sign_projection,
    squared_norm,
)
from unlearn_kernels.convolution.shapes import SHAPES as CONVOLUTIONS
from unlearn_kernels.fisher_diagonal.shapes import SHAPES as FISHER_DIAGONALS
from unlearn_kernels.pooling.shapes import SHAPES as POOLINGS
from unlearn_kernels.sign_projection.shapes import SHAPES as SIGN_PROJECTIONS
from unlearn_kernels.squared_norm.shapes import SHAPES as SQUARED_NORMS

ITERATIONS = 2


class Task(NamedTuple):
    """Description: one operation at one shape, ready to be called."""

    label: str
    shapes: tuple[tuple[int, ...], ...]
    operation: Callable[..., Any]
    implementations: Mapping[str, Any]


def convolutions() -> Iterator[Task]:
    """The tasks of ``convolution/shapes.py``."""
    for shape in CONVOLUTIONS:
        pads = (shape.pad, shape.pad)
        operation = functools.partial(
            convolution.conv2d,
            strides=(shape.stride, shape.stride),
            padding=(pads, pads),
        )
        label = f"{shape.source}: {shape.images} * {shape.kernel}"
        shapes = (shape.images, shape.kernel)
        yield Task(label, shapes, operation, convolution.IMPLEMENTATIONS)


def poolings() -> Iterator[Task]:
    """The tasks of ``pooling/shapes.py``."""
    for shape in POOLINGS:
        operation = functools.partial(pooling.max_pool2d, window=shape.window)
        label = f"{shape.source}: {shape.images}"
        yield Task(label, (shape.images,), operation, pooling.IMPLEMENTATIONS)


def fisher_diagonals() -> Iterator[Task]:
    """The tasks of ``fisher_diagonal/shapes.py``."""
    for shape in FISHER_DIAGONALS:
        rows = (shape.examples, shape.groups, shape.positions)
        arrays = ((*rows, shape.taken), (*rows, shape.given), (shape.examples,))
        label = f"{shape.source}: {rows} {shape.taken} * {shape.given}"
        implementations = fisher_diagonal.IMPLEMENTATIONS
        yield Task(label, arrays, fisher_diagonal.square_sum, implementations)


def squared_norms() -> Iterator[Task]:
    """The tasks of ``squared_norm/shapes.py``."""
    for shape in SQUARED_NORMS:
        rows = (shape.examples, shape.groups, shape.positions)
        arrays = ((*rows, shape.taken), (*rows, shape.given))
        label = f"{shape.source}: {rows} {shape.taken} * {shape.given}"
        operation = squared_norm.squared_norm
        yield Task(label, arrays, operation, squared_norm.IMPLEMENTATIONS)


def sign_projections() -> Iterator[Task]:
    """The tasks of ``sign_projection/shapes.py``."""
    seeds = jnp.asarray([1, 2], jnp.uint32)
    for shape in SIGN_PROJECTIONS:
        places = jnp.arange(shape.parameters, dtype=jnp.uint32)

        def project(
            values: Any, implementation: Any, places: Any = places, shape: Any = shape
        ) -> Any:
            return sign_projection.project_signs(
                *(seeds, values, places),
                width=shape.width,
                implementation=implementation,
            )

        values = (shape.examples, shape.parameters)
        label = f"{shape.source}: {values} to {shape.width}"
        yield Task(label, (values,), project, sign_projection.IMPLEMENTATIONS)


OPERATIONS = {
    "convolution": convolutions,
    "fisher_diagonal": fisher_diagonals,
    "pooling": poolings,
    "sign_projection": sign_projections,
    "squared_norm": squared_norms,
}


def median_ms(call: Callable[[], Any], seconds: float) -> float:
    """Median of ten warm calls; of fewer, at least three, once ``seconds`` are over."""
    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < 10 and (len(times) < 3 or sum(times) < seconds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure(task: Task, implementation: str | None, gradient: bool, seconds: float):
    """Milliseconds outside of a loop and per iteration inside; None: not supported."""
    keys = jax.random.split(jax.random.key(0), len(task.shapes))
    arrays = tuple(
        jax.random.normal(key, (ITERATIONS, *shape), jnp.float32)
        for key, shape in zip(keys, task.shapes, strict=True)
    )

    def run(*operands: Any) -> Any:
        operation = functools.partial(task.operation, implementation=implementation)
        if not gradient:
            return operation(*operands)
        value, pullback = jax.vjp(operation, *operands)
        return pullback(value)

    first = tuple(array[0] for array in arrays)
    try:
        blank = jax.tree.map(jnp.zeros_like, jax.eval_shape(run, *first))
    except NotImplementedError:
        return None
    outside = jax.jit(run)
    # The result is the carry: all of it is computed, and only the last one is kept.
    inside = jax.jit(
        lambda *xs: jax.lax.scan(lambda _, x: (run(*x), None), blank, xs)[0]
    )
    alone = median_ms(lambda: outside(*first), seconds)
    return alone, median_ms(lambda: inside(*arrays), seconds) / ITERATIONS


def table(operation: str, seconds: float, smallest: bool = False) -> None:
    """Print the table of one operation, or the rows of its smallest shape alone."""
    tasks = list(OPERATIONS[operation]())
    if smallest:
        sizes = [sum(map(math.prod, task.shapes)) for task in tasks]
        tasks = [tasks[sizes.index(min(sizes))]]
    names = list(tasks[0].implementations)
    print(
        f"\n{operation}, jax {jax.__version__} on {jax.devices()[0].device_kind}; "
        "ms, in a loop ms\n"
    )
    print(f"| shape | pass | {' | '.join(names)} | default | ratio (in a loop) |")
    print("|---" * (4 + len(names)) + "|")
    for task in tasks:
        for gradient in (False, True):
            cells, default, reference = [], None, None
            for name in (*names, None):
                times = measure(task, name, gradient, seconds)
                cells.append("-" if times is None else "{:.2f}, {:.2f}".format(*times))
                if name == "reference":
                    reference = times
                default = times
            ratio = "-"
            if reference and default:
                alone, looped = reference[0] / default[0], reference[1] / default[1]
                ratio = f"{alone:.2f} ({looped:.1f})"
            what = "gradient" if gradient else "forward"
            print(
                f"| {task.label} | {what} | {' | '.join(cells)} | {ratio} |", flush=True
            )


def main() -> None:
    """Print the table of one operation."""
    parser = argparse.ArgumentParser(description="Time one operation, as a table.")
    parser.add_argument("operation", choices=sorted(OPERATIONS))
    parser.add_argument("--seconds", type=float, default=20.0, help="per number")
    options = parser.parse_args()
    table(options.operation, options.seconds)


if __name__ == "__main__":
    main()
