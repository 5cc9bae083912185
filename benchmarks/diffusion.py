"""Times of the diffusion transformer: a step against PyTorch's, curvature in gradients.

    python benchmarks/diffusion.py [training] [curvature] [--quick]

Every table is one run: contenders take turns, round by round, and a number is the
median over rounds, warm, in wall time and in CPU time (all threads; the steadier one
where other programs share the cores). A step draws times, noise and dropped captions,
then takes loss, gradient and an update of Adam. PyTorch is an optional peer, said to be
missing where it is not installed.
"""

import argparse
import importlib.util
import os
import platform
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import table, turns

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

WORDS = 41
SIZES = {
    "tokens": 6,
    "patch": 2,
    "depth": 3,
    "width": 48,
    "heads": 4,
    "text_width": 48,
    "text_depth": 2,
}
"""Those of the generator of ``experiments.canvas``."""
RATE, DROP, BATCH = 2e-3, 0.1, 64
SCHEDULE = cosine_schedule(200)
MODEL = diffusion_transformer((8, 8, 1), WORDS, **SIZES)
OBJECTIVE = diffusion_objective(MODEL)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args()
    rounds = 5 if given.quick else 21
    cores = len(os.sched_getaffinity(0))
    machine = f"{platform.machine()}, {cores} cores, jax {jax.__version__}"
    print(f"{machine} on {target_platform()}, {rounds} rounds")
    for part in given.parts or PARTS:
        PARTS[part](rounds)


def images(count: int) -> Batch:
    """Noise with random captions: the arithmetic does not depend on the data."""
    random = np.random.default_rng(0)
    drawn = random.uniform(-1, 1, (count, 8, 8, 1)).astype(np.float32)
    words = random.integers(0, WORDS, (count, SIZES["tokens"])).astype(np.int32)
    return jax.tree.map(jnp.asarray, Batch(drawn, words, np.ones(count, np.float32)))


def training(rounds: int) -> None:
    """Twenty steps of Adam, beside the same of the peer."""
    batch = images(BATCH)
    params = MODEL.model.init(jax.random.key(0)).params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    contenders = {"unlearn_jax": our_steps(batch, params)}
    if importlib.util.find_spec("torch") is None:
        print("\nPyTorch is not installed: the peer is skipped.")
    else:
        import diffusion_peer

        signal = np.asarray(SCHEDULE.signal)
        given = batch, signal, WORDS, SIZES, RATE, DROP
        name, theirs, step = diffusion_peer.step(*given)
        if theirs != count:
            raise RuntimeError(f"{theirs} parameters against {count}: other models")
        contenders = {name: lambda: [step() for _ in range(20)], **contenders}
    seconds = turns(contenders, rounds)
    title = f"20 steps of Adam on {BATCH} images of 8x8, {count:,} parameters"
    table(title, "first", seconds, next(iter(seconds.values())))


def our_steps(batch: Batch, params: Any) -> Any:
    """One program for 20 steps, as training has one for all of them."""
    rule = optax.adam(RATE)

    def loss(params: Any, key: Any, batch: Batch) -> Any:
        draws = draw(key, SCHEDULE, batch.inputs, drop=DROP)
        seen = noised(SCHEDULE, batch, draws)
        return 2 / seen.targets.shape[1] * OBJECTIVE.risk(params, seen)

    def steps(params: Any, state: Any, key: Any, batch: Batch) -> Any:
        def step(i: Any, held: Any) -> Any:
            params, state = held
            slope = jax.grad(loss)(params, jax.random.fold_in(key, i), batch)
            updates, state = rule.update(slope, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 20, step, (params, state))

    run = jax.jit(steps, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, params)
    held, key = [params, rule.init(params)], jax.random.key(1)

    def once() -> None:
        held[:] = run(*held, key, batch)
        jax.block_until_ready(held)

    return once


def curvature(rounds: int) -> None:
    """What curvature of the diffusion loss costs, in gradients of the same images."""
    batch = images(512)
    params = MODEL.model.init(jax.random.key(0)).params
    vector = jax.tree.map(jnp.cos, params)
    draws = draw(jax.random.key(2), SCHEDULE, batch.inputs)
    seen = noised(SCHEDULE, batch, draws)

    def gradient(params: Any, rows: Batch) -> Any:
        # In blocks, as the diagonal takes them: 512 at once leave the cache.
        def block(part: Batch) -> Any:
            return jax.grad(OBJECTIVE.total)(params, part)

        parts = jax.tree.map(lambda leaf: leaf.reshape(8, 64, *leaf.shape[1:]), rows)
        zero = jax.tree.map(jnp.zeros_like, params)
        add = lambda total, part: (jax.tree.map(jnp.add, total, block(part)), None)  # noqa: E731
        return jax.lax.scan(add, zero, parts)[0]

    def whole(params: Any, rows: Batch) -> Any:
        return jax.grad(OBJECTIVE.total)(params, rows)

    def fisher(params: Any, rows: Batch) -> Any:
        return empirical_fisher_diagonal(OBJECTIVE, params, rows)

    def product(params: Any, rows: Batch, vector: Any) -> Any:
        return gauss_newton(OBJECTIVE, params, rows).matvec(vector)

    def factors(params: Any, rows: Batch) -> Any:
        return ekfac(None, OBJECTIVE, params, rows)

    seconds = turns(
        {
            "gradient, in blocks of 64": ready(gradient, params, seen),
            "gradient, at once": ready(whole, params, seen),
            "Fisher diagonal": ready(fisher, params, seen),
            "Gauss-Newton product": ready(product, params, seen, vector),
            "EK-FAC, with its decompositions": ready(factors, params, seen),
        },
        rounds,
    )
    first = seconds["gradient, in blocks of 64"]
    table("512 noised images of 8x8 under captions", "g", seconds, first)


def ready(run: Any, *given: Any) -> Any:
    """The compiled call."""
    program = jax.jit(run).lower(*given).compile()
    return lambda: jax.block_until_ready(program(*given))


PARTS = {"training": training, "curvature": curvature}

if __name__ == "__main__":
    main()
