"""What each solver says in float32, against the truth in float64 and against LAPACK.

PYTHONPATH=kernels:. python benchmarks/solvers.py
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.solution import (
    INCONSISTENT,
    INDEFINITE,
    OUT_OF_STEPS,
    Solution,
    acceptable,
)
from unlearn_jax.types import Array

SIZE = 24
CONDITIONS = (10, 1e2, 1e3, 1e4, 1e5, 1e6)


class Contender(NamedTuple):
    """Description: ``solve(operator, rhs, tol=, max_steps=)`` and what it is given."""

    solve: Callable[..., Solution]
    signs: bool = False
    columns: int = 1


SOLVERS = {
    "CG": Contender(conjugate_gradient),
    "block CG": Contender(block_conjugate_gradient, columns=3),
    "MINRES": Contender(minres),
    "MINRES, indefinite": Contender(minres, signs=True),
    "Neumann": Contender(neumann),
}


class Census(NamedTuple):
    """Value: what became of the right-hand sides of one solver and condition.

    Attributes:
        converged: How many the solver calls converged.
        precise: How many it calls as good as the dtype can tell.
        out_of_steps: How many ran out of steps.
        misjudged: How many were told that the matrix is not positive definite, or that
            the right-hand side is outside of its range.
        false_claims: Called converged though the true residual is above 1.2 tol.
        false_alarms: Called a failure though the true residual is not above LAPACK's.
        residual: Median true residual.
        lapack: Median true residual of LAPACK in float32.
    """

    converged: int
    precise: int
    out_of_steps: int
    misjudged: int
    false_claims: int
    false_alarms: int
    residual: float
    lapack: float


def system(
    condition: float, signs: bool, columns: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A (f, f) with eigenvalues from 1 / condition to 1, and b (columns, f)."""
    random = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(random.normal(size=(SIZE, SIZE)))
    values = np.geomspace(1 / condition, 1, SIZE)
    values *= np.where(np.arange(SIZE) % 2, -1, 1) if signs else 1
    matrix = ((vectors * values) @ vectors.T).astype(np.float32)
    return matrix, random.normal(size=(columns, SIZE)).astype(np.float32)


def census(
    name: str,
    conditions: tuple[float, ...],
    seeds: int,
    *,
    tol: float = 1e-6,
    max_steps: int = 4000,
) -> list[Census]:
    """Solve for all seeds and conditions in one program, and count; one per condition.

    Args:
        name: In ``SOLVERS``.
        conditions: Condition numbers.
        seeds: Systems for each of them.
        tol: Bound on the residual that is asked for.
        max_steps: Most steps.
    """
    solve, signs, columns = SOLVERS[name]
    cases = [system(c, signs, columns, s) for c in conditions for s in range(seeds)]
    matrices, rhs = (np.stack(part) for part in zip(*cases, strict=True))

    def one(matrix: Array, rhs: Array) -> Any:
        right = rhs if columns > 1 else rhs[0]
        operator = linear_operator(lambda v: matrix @ v, rhs[0])
        return solve(operator, right, tol=tol, max_steps=max_steps)

    found = jax.jit(jax.vmap(one))(matrices, rhs)
    value = np.asarray(found.value).reshape(rhs.shape)
    direct = np.linalg.solve(matrices, rhs.transpose(0, 2, 1)).transpose(0, 2, 1)

    def by_condition(values: Any) -> Any:
        return np.reshape(values, (len(conditions), seeds * columns))

    true, lapack = (by_condition(residuals(matrices, x, rhs)) for x in (value, direct))
    converged, code, good = map(
        by_condition, (found.converged, found.code, acceptable(found))
    )
    return [
        Census(
            converged=int(converged[i].sum()),
            precise=int((good[i] & ~converged[i]).sum()),
            out_of_steps=int((code[i] == OUT_OF_STEPS).sum()),
            misjudged=int(np.isin(code[i], (INDEFINITE, INCONSISTENT)).sum()),
            false_claims=int((converged[i] & (true[i] > 1.2 * tol)).sum()),
            false_alarms=int((~good[i] & (true[i] <= lapack[i])).sum()),
            residual=float(np.median(true[i])),
            lapack=float(np.median(lapack[i])),
        )
        for i in range(len(conditions))
    ]


def residuals(matrices: np.ndarray, x: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """‖A x − b‖ / ‖b‖ in float64."""
    a, x, b = (part.astype(np.float64) for part in (matrices, x, rhs))
    left = np.einsum("sij,skj->ski", a, x) - b
    return np.linalg.norm(left, axis=2) / np.linalg.norm(b, axis=2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--max-steps", type=int, default=4000)
    args = parser.parse_args()
    print(
        f"{processor()}, JAX {jax.__version__}, {jnp.ones(1).dtype}, tol {args.tol}\n"
    )
    print(
        "| solver | condition | right-hand sides | converged | as good as float32 "
        "| out of steps | matrix misjudged | other failures "
        "| converged, but above 1.2 tol "
        "| failed, but as good as LAPACK | median residual | LAPACK's |"
    )
    print("|---" + 11 * "|---:" + "|")
    for name, contender in SOLVERS.items():
        found = census(
            name, CONDITIONS, args.seeds, tol=args.tol, max_steps=args.max_steps
        )
        for condition, one in zip(CONDITIONS, found, strict=True):
            total = args.seeds * contender.columns
            told = one.converged + one.precise + one.out_of_steps + one.misjudged
            print(
                f"| {name} | {condition:.0e} | {total} | {one.converged} "
                f"| {one.precise} | {one.out_of_steps} | {one.misjudged} "
                f"| {total - told} | {one.false_claims} | {one.false_alarms} "
                f"| {one.residual:.1e} | {one.lapack:.1e} |",
                flush=True,
            )


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
