"""Times of sequences: the transformer against PyTorch's, curvature in gradients.

    python benchmarks/language.py [PART ...] [--quick]

Every table is one run: contenders take turns, round by round, and a number is the
median over rounds, warm, in wall time and in CPU time (all threads; the steadier one
where other programs share the cores). The peer is the Llama of ``transformers`` of the
same sizes, named where it is not installed. ``benchmarks/published.py`` prices the same
of a published model.
"""

import argparse
import importlib.util
import os
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import table, turns

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.data.tokens import sequences
from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

VOCABULARY = 1024
SIZES = {"depth": 4, "width": 256, "heads": 8, "groups": 4, "hidden": 688}
SMALL = {"depth": 2, "width": 128, "heads": 4, "groups": 2, "hidden": 344}
RATE = 1e-3


def main() -> None:
    """Run the chosen parts and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args()
    rounds = 3 if given.quick else 7
    cores = len(os.sched_getaffinity(0))
    machine = f"{platform.machine()}, {cores} cores, jax {jax.__version__}"
    print(f"{machine} on {target_platform()}, {rounds} rounds")
    for part in given.parts or PARTS:
        PARTS[part](rounds)


def tokens(rows: int, length: int, vocabulary: int) -> Batch:
    """Random tokens: the arithmetic does not depend on them."""
    drawn = np.random.default_rng(0).integers(0, vocabulary, (rows, length + 1))
    return jax.tree.map(jnp.asarray, sequences(drawn.astype(np.int32)))


def training(rounds: int) -> None:
    """A step of Adam beside the same of the peer."""
    batch = tokens(8, 128, VOCABULARY)
    contenders = {"unlearn_jax": our_step(batch)}
    if importlib.util.find_spec("transformers") is None:
        print("\ntransformers is not installed: the peer is skipped.")
    else:
        import llama_peer

        name, step = llama_peer.step(batch, VOCABULARY, SIZES, RATE)
        contenders = {name: step, **contenders}
    seconds = turns(contenders, rounds)
    title = "A step of Adam on 8 sequences of 128 tokens, 3.2 million parameters"
    table(title, "first", seconds, next(iter(seconds.values())))


def our_step(batch: Batch) -> Any:
    """Loss, gradient and update as one program; its state is handed on in place."""
    length = batch.inputs.shape[1]
    model = MODELS["transformer"]((length,), VOCABULARY, **SIZES)
    objective = bind(model, {}, sequence_nll)
    rule = optax.adam(RATE)

    def step(params: Any, state: Any, batch: Batch) -> Any:
        slope = jax.grad(objective.risk)(params, batch)
        updates, state = rule.update(slope, state, params)
        return optax.apply_updates(params, updates), state

    run = jax.jit(step, donate_argnums=(0, 1))
    params = model.init(jax.random.key(0)).params
    held = [params, rule.init(params)]

    def once() -> None:
        held[:] = run(*held, batch)
        jax.block_until_ready(held)

    return once


def curvature(rounds: int) -> None:
    """Fisher diagonal and Gauss-Newton product in gradients of the same sequences."""
    batch = tokens(256, 64, VOCABULARY)
    model = MODELS["transformer"]((64,), VOCABULARY, **SMALL)
    params = model.init(jax.random.key(0)).params
    objective = bind(model, {}, sequence_nll)
    vector = jax.tree.map(jnp.cos, params)

    def gradient(params: Any, batch: Batch) -> Any:
        # In blocks, as the diagonal takes them: 256 at once leave the cache.
        def block(rows: Batch) -> Any:
            return jax.grad(objective.total)(params, rows)

        parts = jax.tree.map(lambda leaf: leaf.reshape(32, 8, *leaf.shape[1:]), batch)
        zero = jax.tree.map(jnp.zeros_like, params)
        add = lambda total, rows: (jax.tree.map(jnp.add, total, block(rows)), None)  # noqa: E731
        return jax.lax.scan(add, zero, parts)[0]

    def fisher(params: Any, batch: Batch) -> Any:
        return empirical_fisher_diagonal(objective, params, batch)

    def whole(params: Any, batch: Batch) -> Any:
        return jax.grad(objective.risk)(params, batch)

    def product(params: Any, batch: Batch, vector: Any) -> Any:
        return gauss_newton(objective, params, batch).matvec(vector)

    seconds = turns(
        {
            "gradient, in blocks of 8": ready(gradient, params, batch),
            "Fisher diagonal": ready(fisher, params, batch),
        },
        rounds,
    )
    first = seconds["gradient, in blocks of 8"]
    table("256 sequences of 64 tokens, 0.5 million parameters", "g", seconds, first)
    few = jax.tree.map(lambda leaf: leaf[:32], batch)
    seconds = turns(
        {
            "gradient": ready(whole, params, few),
            "Gauss-Newton product": ready(product, params, few, vector),
        },
        rounds,
    )
    table("32 sequences of 64 tokens", "g", seconds, seconds["gradient"])
    print("\nBytes beside arguments and results of the Fisher diagonal:\n")
    print("| sequences | MiB |\n|---:|---:|")
    for count in (64, 256, 1024):
        program = jax.jit(fisher).lower(params, tokens(count, 64, VOCABULARY))
        planned = program.compile().memory_analysis()
        print(f"| {count} | {planned.temp_size_in_bytes / 2**20:.1f} |", flush=True)


def ready(run: Any, *given: Any) -> Any:
    """The compiled call."""
    program = jax.jit(run).lower(*given).compile()
    return lambda: jax.block_until_ready(program(*given))


def depth(rounds: int) -> None:
    """Seconds of compiling a gradient at 6 and at 30 layers, which are scanned."""
    del rounds
    print("\nCompiling the gradient of a transformer of width 64:\n")
    print("| blocks | kept | CPU s | ÷ 6 blocks |\n|---:|---|---:|---:|")
    batch = tokens(4, 32, VOCABULARY)
    for scan in (True, False):
        first = None
        for blocks in (6, 30):
            model = MODELS["transformer"](
                (32,), VOCABULARY, depth=blocks, width=64, scan=scan
            )
            objective = bind(model, {}, sequence_nll)
            params = jax.eval_shape(model.init, jax.random.key(0)).params
            begun = time.process_time()
            jax.jit(jax.grad(objective.risk)).lower(params, batch).compile()
            spent = time.process_time() - begun
            first = first or spent
            kept = "stacked, one loop" if scan else "one after another"
            print(f"| {blocks} | {kept} | {spent:.2f} | {spent / first:.2f} |")


PARTS = {"training": training, "curvature": curvature, "depth": depth}


if __name__ == "__main__":
    main()
