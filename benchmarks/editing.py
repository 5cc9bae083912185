"""Times of one edit of linear maps, as ratios to the BLAS and LAPACK it cannot avoid.

    python benchmarks/editing.py [PART ...] [--quick] [--once]

Parts: ``few`` (fewer rows than dimensions: the dual road) and ``many`` (the primal
road), each for the maps of a toy (48 × 288) and of a published generator's size
(768 × 8,192), and ``request``: one more request to sums that are carried. In float32,
on one thread; contenders take turns, numbers are medians, warm.
``--once`` leaves out those that refine their solve, which take seconds.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from timing import table, turns

from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.state import edit_add, edit_start
from unlearn_jax.types import Batch

SIZES = {"toy": (48, 288), "large": (768, 8192)}
"""Dimensions of a key, outputs of all maps together."""
ROWS = {"few": {"toy": 12, "large": 77}, "many": {"toy": 240, "large": 2400}}
L2 = 0.5


def rows(d: int, k: int, n: int) -> Batch:
    """Keys and shifts of unit scale."""
    random = np.random.default_rng(0)
    keys, shifts = (random.normal(size=(n, width)) for width in (d, k))
    return Batch(
        keys.astype(np.float32), shifts.astype(np.float32), np.ones(n, np.float32)
    )


def floor(maps: Any, batch: Batch, few: bool) -> np.ndarray:
    """The same edit by scipy: one product, one Cholesky factor, one solve."""
    keys, shifts, _ = batch
    if few:
        square = keys @ keys.T
        square[np.diag_indices(len(keys))] += L2
        factor = scipy.linalg.cho_factor(square, lower=True, check_finite=False)
        dual = scipy.linalg.cho_solve(factor, shifts, check_finite=False)
        return maps + keys.T @ dual
    square = keys.T @ keys
    square[np.diag_indices(keys.shape[1])] += L2
    factor = scipy.linalg.cho_factor(square, lower=True, check_finite=False)
    return maps + scipy.linalg.cho_solve(factor, keys.T @ shifts, check_finite=False)


def part_of(name: str, rounds: int, leave: tuple[str, ...]) -> None:
    """One edit, both ways."""
    for size, (d, k) in SIZES.items():
        n = ROWS[name][size]
        maps = {"all": jnp.ones((d, k), jnp.float32)}
        batch, plain = rows(d, k, n), np.ones((d, k), np.float32)
        own, whole = jax.jit(partial(edit, l2=L2)), jax.tree.map(jnp.asarray, batch)
        gap = np.abs(np.asarray(own(maps, whole)["all"]) - floor(plain, batch, n < d))
        assert gap.max() < 1e-2, gap.max()
        once = jax.jit(partial(edit, l2=L2, refine=False))
        every = {
            "BLAS": lambda: floor(plain, batch, n < d),  # noqa: B023
            "edit": lambda: jax.block_until_ready(own(maps, whole)),  # noqa: B023
            "edit, not refined": lambda: jax.block_until_ready(
                once(maps, whole)  # noqa: B023
            ),
        }
        told = turns({k: v for k, v in every.items() if k not in leave}, rounds)
        title = f"{name} rows, {size}: {n} rows of {d} to {k} outputs"
        table(title, "BLAS", told, told["BLAS"])


def request(rounds: int, leave: tuple[str, ...]) -> None:
    """One more request: sums and solve, which the floor makes of all sums too."""
    for size, (d, k) in SIZES.items():
        n = ROWS["few"][size]
        batch = rows(d, k, n)
        whole = jax.tree.map(jnp.asarray, batch)
        start = edit_start({"all": jnp.ones((d, k), jnp.float32)}, l2=L2)
        add = jax.jit(partial(edit_add, digits=None, slices=0))
        once = jax.jit(partial(edit_add, digits=None, slices=0, refine=False))
        exact = jax.jit(edit_add)
        gram = np.zeros((d, d), np.float32)
        moment, plain = np.zeros((d, k), np.float32), np.ones((d, k), np.float32)

        def least() -> np.ndarray:
            keys, shifts, _ = batch  # noqa: B023
            square = gram + keys.T @ keys  # noqa: B023
            sums = moment + keys.T @ shifts  # noqa: B023
            square[np.diag_indices(len(square))] += L2
            factor = scipy.linalg.cho_factor(square, lower=True, check_finite=False)
            return plain + scipy.linalg.cho_solve(factor, sums, check_finite=False)  # noqa: B023

        every = {
            "BLAS": least,
            "carried": lambda: jax.block_until_ready(add(start, whole)),  # noqa: B023
            "carried, not refined": lambda: jax.block_until_ready(
                once(start, whole)  # noqa: B023
            ),
            "carried, exact sums": lambda: jax.block_until_ready(
                exact(start, whole)  # noqa: B023
            ),
        }
        told = turns({k: v for k, v in every.items() if k not in leave}, rounds)
        table(f"one more request, {size}", "BLAS", told, told["BLAS"])


def main() -> None:
    """All parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["few", "many", "request"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--once", action="store_true", help="nothing that refines")
    given = parser.parse_args()
    rounds = 5 if given.quick else 30
    refined = ("edit", "carried", "carried, exact sums")
    for name in given.parts:
        if name == "request":
            request(rounds, refined if given.once else ())
        else:
            part_of(name, rounds, refined if given.once else ())


if __name__ == "__main__":
    main()
