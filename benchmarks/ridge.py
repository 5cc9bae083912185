"""Times of deletion from ridge regression, as ratios in one run.

    python benchmarks/ridge.py [PART ...] [--quick]

Parts: ``weights`` (weights at once, inverse later) against the memory bandwidth,
``update`` (the whole update in place) against the products it cannot avoid, the same in
PyTorch, without donation and by inverting anew, ``refit`` against solving from stored
features, and ``crossover`` against factorising the Gram matrix anew. All in float64;
contenders take turns, numbers are medians, warm, wall and CPU time. PyTorch is left out
where it is not installed.
"""

import argparse
import os
import platform

# Threads of LAPACK that wait for work burn the CPU time of whoever runs next. BLAS of
# numpy and scipy then runs on one thread: read its CPU times; PyTorch keeps all.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from scipy.linalg import get_blas_funcs, get_lapack_funcs
from timing import Seconds, table, turns

from unlearn_jax.solvers.refusal import check_applied
from unlearn_jax.solvers.ridge_choice import crossover as choice_crossover
from unlearn_jax.solvers.ridge_choice import measure_rates
from unlearn_jax.solvers.ridge_deferred import deferred_remove, deferred_start
from unlearn_jax.solvers.ridge_gram import gram_add, gram_remove, gram_start
from unlearn_jax.solvers.ridge_inverse import (
    Ridge,
    donating,
    inverse_add,
    inverse_remove,
    inverse_start,
)
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

try:
    import torch
except ImportError:
    torch: Any = None

OUTPUTS, L2 = 10, 1.0


def main() -> None:
    """Run the chosen parts and print Markdown tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="smaller, fewer rounds")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rounds = 3 if given.quick else 5
    machine = f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}"
    print(f"{machine} on {target_platform()}, {rounds} rounds, float64")
    if torch is None:
        print("\nNot installed, skipped: torch.")
    for part in given.parts or PARTS:
        PARTS[part](rounds, given.quick)


def weights(rounds: int, quick: bool) -> None:
    """Weights at once, the inverse later; the unit is reading the inverse once."""
    f = 2048 if quick else 8192
    for k in (1, 32):
        weights_only(f, k, rounds)


def weights_only(f: int, k: int, rounds: int) -> None:
    state, rows = learned(f), removable(f, k)
    contenders = {"reading R": reading(state.inverse)}
    contenders["R Xᵀ alone, jax"] = products(state.inverse, k)["jax"]
    start = jax.tree.map(jnp.copy, state)
    holder = Held(deferred_remove, deferred_start(start, capacity=8 * k))
    contenders["weights only"] = lambda: holder(rows)
    seconds = turns(contenders, rounds)
    check_applied(holder.state)
    title = f"Weights only, M = {f}, k = {k}; the limit is reading R once"
    table(title, "limit", seconds, seconds["reading R"])


class Held:
    """A request that updates its state in place, call after call."""

    def __init__(self, request: Callable[..., Any], state: Any):
        self.request, self.state = donating(request), state

    def __call__(self, rows: Batch) -> None:
        """Update and wait."""
        self.state = jax.block_until_ready(self.request(self.state, rows))


def update(rounds: int, quick: bool) -> None:
    """The whole update in place; the unit is R Xᵀ and the product of rank k alone."""
    f = 2048 if quick else 8192
    for k in (1, 32, 256, 1024):
        update_by(f, k, rounds)


def update_by(f: int, k: int, rounds: int) -> None:
    state, rows = learned(f), removable(f, k)
    plain = jax.jit(inverse_remove)
    parts = turns(products(state.inverse, k), rounds)
    pairs = turns(rank_products(f, k), rounds)
    floor = total(lowest(parts), lowest(pairs))
    holder = Held(inverse_remove, jax.tree.map(jnp.copy, state))
    contenders = {"in place": lambda: holder(rows)}
    if torch is not None:
        contenders["torch in place"] = torch_update(state, rows)
    contenders["without donation"] = lambda: jax.block_until_ready(plain(state, rows))
    seconds = {"floor: products alone": floor} | turns(contenders, rounds)
    check_applied(holder.state)
    # The inverse from a Gram matrix: what a request costs without an update.
    seconds |= turns({"invert anew": inverting(state.inverse)}, 1)
    seconds |= {f"R Xᵀ, {name}": one for name, one in parts.items()}
    seconds |= {f"rank k, {name}": one for name, one in pairs.items()}
    table(f"Update in place, M = {f}, k = {k}", "floor", seconds, floor)


def refit(rounds: int, quick: bool) -> None:
    """Ten rows against solving from all stored features; the unit is the deletion."""
    f, n = (512, 15_000) if quick else (2048, 60_000)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(n, f)), draw.normal(size=(n, OUTPUTS))

    def lapack() -> Any:
        gram = x.T @ x + L2 * np.eye(f)
        return scipy.linalg.solve(gram, x.T @ y, assume_a="pos")

    def solve(x: Any, y: Any) -> Any:
        gram = x.T @ x + L2 * jnp.eye(f)
        return jax.scipy.linalg.solve(gram, x.T @ y, assume_a="pos")

    solved = jax.jit(solve)
    data = jnp.asarray(x), jnp.asarray(y)
    state = inverse_start(f, OUTPUTS, l2=L2)
    add = donating(inverse_add)
    for at in range(0, n, f):
        part = slice(at, at + f)
        state = add(state, Batch(x[part], y[part], np.ones(len(x[part]))))
    gap = np.abs(state.weight - lapack()).max() / np.abs(state.weight).max()
    print(f"\nLearned in blocks against a dense solve: {gap:.1e} relative.")
    rows = Batch(x[:10], y[:10], np.full(10, 1e-3))
    whole, later = (
        Held(inverse_remove, jax.tree.map(jnp.copy, state)),
        Held(deferred_remove, deferred_start(state, capacity=1280)),
    )
    contenders = {
        "in place": lambda: whole(rows),
        "weights only": lambda: later(rows),
        "refit, numpy and LAPACK": lapack,
        "refit, JAX": lambda: jax.block_until_ready(solved(*data)),
    }
    seconds = turns(contenders, rounds)
    check_applied(whole.state)
    check_applied(later.state)
    title = f"Deletion of 10 rows against a refit from {n} stored rows, M = {f}"
    table(title, "deletion", seconds, seconds["in place"])


def crossover(rounds: int, quick: bool) -> None:
    """Rows from which solving the sums anew is cheaper, and where the chooser says."""
    f = 1024 if quick else 2048
    solve = partial(gram_remove, slices=1)
    sums = gram_add(gram_start(f, OUTPUTS, l2=L2), removable(f, 2 * f, weight=1.0))
    print(f"\nGram form against the inverse, M = {f}\n")
    print("| k | inverse ms | Gram ms | wall Gram ÷ inverse | CPU Gram ÷ inverse |")
    print("|---:|---:|---:|---:|---:|")
    sizes = [f // 16, f // 8, f // 4, 3 * f // 8, f // 2, 3 * f // 4, f]
    ratios = []
    for k in sizes:
        rows = removable(f, k)
        held = Held(inverse_remove, learned(f))
        other = Held(solve, jax.tree.map(jnp.copy, sums))
        seconds = turns(
            {
                "inverse": lambda h=held, r=rows: h(r),
                "gram": lambda h=other, r=rows: h(r),
            },
            rounds,
        )
        a, b = seconds["inverse"], seconds["gram"]
        ratios.append(b.wall / a.wall)
        print(
            f"| {k} | {1e3 * a.wall:.1f} | {1e3 * b.wall:.1f} "
            f"| {b.wall / a.wall:.2f} | {b.cpu / a.cpu:.2f} |",
            flush=True,
        )
    rates = measure_rates(f, OUTPUTS)
    print(f"\nCrossover (wall time): measured {meeting(sizes, ratios)}, ", end="")
    print(f"chosen from rates of 32 and {f // 8} rows: {choice_crossover(rates):.0f}")


def meeting(sizes: list[int], ratios: list[float]) -> str:
    """Where the ratio falls through 1, between the two sizes around it."""
    for i in range(1, len(sizes)):
        if ratios[i - 1] > 1 >= ratios[i]:
            high, low = np.log(ratios[i - 1]), np.log(ratios[i])
            share = high / (high - low)
            return f"{sizes[i - 1] + share * (sizes[i] - sizes[i - 1]):.0f} rows"
    return f"none between {sizes[0]} and {sizes[-1]} rows"


def learned(f: int) -> Ridge:
    """A state like one after many rows of the same variance in all directions."""
    state = inverse_start(f, OUTPUTS, l2=float(f))
    return state._replace(count=jnp.asarray(1e6))


def removable(f: int, k: int, weight: float = 1e-3) -> Batch:
    """Rows of so little weight that they can leave many times."""
    draw = np.random.default_rng(k)
    inputs, targets = draw.normal(size=(k, f)), draw.normal(size=(k, OUTPUTS))
    return Batch(*map(jnp.asarray, (inputs, targets, np.full(k, weight))))


def reading(matrix: Any) -> Callable[[], Any]:
    """One pass over a matrix, on all threads."""
    if torch is not None:
        data = torch.from_numpy(np.array(matrix))
        return data.sum
    summed = jax.jit(jnp.sum)
    return lambda: jax.block_until_ready(summed(matrix))


def products(matrix: Any, k: int) -> dict[str, Callable[[], Any]]:
    """R Xᵀ by each library."""
    rows = removable(matrix.shape[0], k).inputs
    dense, right = np.array(matrix), np.array(rows)
    product = jax.jit(lambda r, x: r @ x.T)
    found: dict[str, Callable[[], Any]] = {
        "jax": lambda: jax.block_until_ready(product(matrix, rows)),
        "numpy": lambda: dense @ right.T,
    }
    if torch is not None:
        a, b = torch.from_numpy(dense), torch.from_numpy(right)
        found["torch"] = lambda: a @ b.T
    return found


def rank_products(f: int, k: int) -> dict[str, Callable[[], Any]]:
    """R − V Vᵀ in place by each library, scipy's in one half of R only."""
    factor = 1e-6 * np.random.default_rng(0).normal(size=(f, k))
    columns = np.asfortranarray(factor)
    half = np.zeros((f, f), order="F")
    (dsyrk,) = get_blas_funcs(["syrk"], [half])
    found: dict[str, Callable[[], Any]] = {
        "dsyrk": lambda: dsyrk(-1.0, columns, beta=1.0, c=half, overwrite_c=1),
    }
    if torch is not None:
        v, whole = torch.from_numpy(factor), torch.zeros((f, f), dtype=torch.float64)
        found["torch addmm_"] = lambda: whole.addmm_(v, v.T, alpha=-1)
    return found


def torch_update(state: Ridge, rows: Batch) -> Callable[[], Any]:
    """The same removal in PyTorch, its inverse updated in place."""
    inverse, weight = (
        torch.from_numpy(np.array(leaf)) for leaf in (state.inverse, state.weight)
    )
    root = np.sqrt(np.array(rows.weights))[:, None]
    x, y = (torch.from_numpy(root * np.array(leaf)) for leaf in rows[:2])
    one = torch.eye(x.shape[0], dtype=x.dtype)

    def run() -> None:
        image = inverse @ x.T
        triangle = torch.linalg.cholesky(one - x @ image)
        factor = torch.linalg.solve_triangular(triangle, image.T, upper=False)
        slope = torch.linalg.solve_triangular(triangle, y - x @ weight, upper=False)
        inverse.addmm_(factor.T, factor)
        weight.addmm_(factor.T, slope, alpha=-1)

    return run


def inverting(matrix: Any) -> Callable[[], Any]:
    """Cholesky and the inverse from it, given the Gram matrix."""
    dense = np.array(matrix)
    potrf, potri = get_lapack_funcs(["potrf", "potri"], [dense])

    def run() -> Any:
        factor, _ = potrf(dense)
        return potri(factor)

    return run


def lowest(seconds: dict[str, Seconds]) -> Seconds:
    """The best of each kind of time."""
    return Seconds(
        min(s.wall for s in seconds.values()), min(s.cpu for s in seconds.values())
    )


def total(a: Seconds, b: Seconds) -> Seconds:
    """One after the other."""
    return Seconds(a.wall + b.wall, a.cpu + b.cpu)


PARTS: dict[str, Callable[[int, bool], None]] = {
    "weights": weights,
    "update": update,
    "refit": refit,
    "crossover": crossover,
}


if __name__ == "__main__":
    main()
