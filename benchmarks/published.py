"""A published language model: gradient, Fisher diagonal, steps of CG, and EK-FAC.

    python benchmarks/published.py FILE.gguf [PART ...] [--blocks 2] [--sequences 16]

The part ``steps`` prices each program once, compiled before: seconds, and the bytes of
arguments, results and temporaries that the compiler plans. ``ekfac`` fits the kernels
gate, up and down of the uppermost blocks beside ``kronfluence`` on the Llama of
``transformers`` with the same weights (written by ``write_llama``); both take the
empirical Fisher, and their traces must agree. Peers are named where they are not
installed.
"""

import argparse
import importlib.util
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from language import tokens

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import damped
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.llama import read_llama
from unlearn_jax.train.loss import sequence_nll, sequence_nll_sum
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch, Variables
from unlearn_kernels.target import target_platform

LENGTH = 128
KERNELS = ("gate", "up", "down")
GIB = 2**30
DAMPING = 1e-2


def main() -> None:
    """Run the chosen parts and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--blocks", type=int, default=2, help="that ekfac takes")
    parser.add_argument("--sequences", type=int, default=16, help="that ekfac takes")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    machine = f"{platform.machine()}, {cores} cores, jax {jax.__version__}"
    print(f"{given.weights.name}: {machine} on {target_platform()}, float32")
    for part in given.parts or PARTS:
        PARTS[part](given)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"\nThe process held at most {peak:.2f} GiB so far.", flush=True)


def priced(name: str, run: Any, *given: Any) -> Any:
    """One call, compiled before, as a line of the table; its result."""
    begun = time.process_time()
    program = jax.jit(run).lower(*given).compile()
    compiling, wall = time.process_time() - begun, time.perf_counter()
    begun = time.process_time()
    found = jax.block_until_ready(program(*given))
    wall, cpu = time.perf_counter() - wall, time.process_time() - begun
    planned = program.memory_analysis()
    sizes = "argument", "output", "temp"
    peak = sum(getattr(planned, f"{size}_size_in_bytes") for size in sizes) / GIB
    print(
        f"| {name} | {wall:.1f} | {cpu:.1f} | {compiling:.1f} | {peak:.2f} |",
        flush=True,
    )
    return found


def header(title: str) -> None:
    """Of :func:`priced`."""
    print(f"\n{title}\n")
    print("| what | s | CPU s | compiling, CPU s | planned, GiB |")
    print("|---|---:|---:|---:|---:|", flush=True)


def steps(given: Any) -> None:
    """Gradient, Fisher diagonal, and steps of CG towards a damped Newton step."""
    found = read_llama(given.weights, scan=True, context=LENGTH)
    objective = bind(found.model, {}, sequence_nll)
    params = found.variables.params
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    few, many = (tokens(n, LENGTH, found.shape.vocabulary) for n in (4, 64))

    def gradient(params: Any, batch: Batch) -> Any:
        return jax.grad(objective.risk)(params, batch)

    def newton(params: Any, batch: Batch) -> Any:
        solution = solved(objective, params, batch)
        return solution.value, solution.residual, solution.steps

    def fisher(params: Any, batch: Batch) -> Any:
        return empirical_fisher_diagonal(objective, params, batch, batch_size=4)

    header(f"{size:,} parameters, sequences of {LENGTH} tokens")
    priced("gradient of 4 sequences", gradient, params, few)
    priced("Fisher diagonal of 64 sequences", fisher, params, many)
    name = "gradient of 4 sequences, and five steps of CG on their Gauss-Newton matrix"
    _, residual, took = priced(name, newton, params, few)
    print(f"\nCG took {took} steps, to a residual of {residual:.2g}.")


def solved(objective: Objective, params: Any, batch: Batch) -> Any:
    """Five steps of conjugate gradients towards the damped Newton step."""
    slope = jax.grad(objective.risk)(params, batch)
    operator = damped(gauss_newton(objective, params, batch), DAMPING)
    return conjugate_gradient(operator, slope, tol=0.0, max_steps=5)


def ekfac_fit(given: Any) -> None:
    """EK-FAC of the kernels of the uppermost blocks, beside kronfluence."""
    found = read_llama(given.weights, scan=False, context=LENGTH)
    batch = tokens(given.sequences, LENGTH, found.shape.vocabulary)
    depth = found.shape.depth
    chosen = range(depth - given.blocks, depth)
    params: Any = found.variables.params
    own = {at: {k: params["blocks"][at][k] for k in KERNELS} for at in chosen}

    def fit(params: Any, own: Any, batch: Batch) -> Any:
        def predict(own: Any, inputs: Any) -> Any:
            whole = [params["blocks"][at] | own.get(at, {}) for at in range(depth)]
            blocks = dict(enumerate(whole))
            return found.model.apply(
                Variables({**params, "blocks": blocks}, {}), inputs
            )

        objective = Objective(predict, sequence_nll_sum)
        return ekfac(None, objective, own, batch, batch_size=4)

    header(
        f"EK-FAC of {len(KERNELS) * given.blocks} kernels, {given.sequences} sequences"
    )
    state = priced("unlearn_jax", fit, params, own, batch)
    trace = sum(float(jnp.sum(block.values)) for block in state.blocks)
    if not all(map(importlib.util.find_spec, ("kronfluence", "transformers"))):
        print("\nkronfluence or transformers is not installed: the peer is skipped.")
        return
    import llama_ekfac_peer

    name, run = llama_ekfac_peer.fit(found, batch, chosen)
    wall, begun = time.perf_counter(), time.process_time()
    theirs = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - begun
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | none | none |")
    print(f"\nMean ‖g‖² of a sequence: {trace:.6g}, the peer's {theirs:.6g}.")


PARTS = {"steps": steps, "ekfac": ekfac_fit}


if __name__ == "__main__":
    main()
