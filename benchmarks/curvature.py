"""Times of the curvature room, as ratios in one run.

    python benchmarks/curvature.py [PART ...] [--quick]

Unit ``g`` is one plain JAX gradient of the same examples. Contenders take turns, round
by round; a number is the median over rounds, warm, in wall time and in CPU time (all
threads; the steadier one where other programs share the cores). PyTorch peers stand
beside ours where they are installed and are named where they are not.
"""

import argparse
import os
import platform

# Threads of LAPACK that wait for work burn the CPU time of whoever runs next.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable
from functools import partial
from typing import Any

import curvature_peers as peers
import ekfac_peers
import jax
import jax.numpy as jnp
import numpy as np
from timing import Seconds, table, turns
from workloads import Workload, cnn, language_model, mlp, resnet18

from unlearn_jax.curvature import contractions
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.gradient_gram import gradient_gram
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker_blocks import mean_eigenvalue
from unlearn_jax.curvature.kronecker_scores import scores_over
from unlearn_jax.curvature.operator import block, damped
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.types import Batch
from unlearn_kernels.fisher_diagonal import square_sum
from unlearn_kernels.target import target_platform

PRODUCTS = 10
QUERIES = 64


def main() -> None:
    """Run the chosen parts and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args()
    rounds = 3 if given.quick else 7
    machine = f"{platform.machine()}, {os.cpu_count()} cores, jax {jax.__version__}"
    print(f"{machine} on {target_platform()}, {rounds} rounds")
    absent = peers.missing()
    if absent:
        print(f"\nNot installed, skipped: {', '.join(absent)}.")
    for part in given.parts or PARTS:
        PARTS[part](rounds)


def ready(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call of a compiled function that waits for its result."""
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def gradient(work: Workload, size: int | None = None) -> Callable[[], Any]:
    """``g``; in parts of ``size`` examples outside of any loop where memory asks it."""
    count = work.batch.weights.shape[0]
    size = size or count
    slope = jax.jit(jax.grad(work.objective.total))
    parts = [
        jax.tree.map(lambda leaf, at=at: leaf[at : at + size], work.batch)
        for at in range(0, count, size)
    ]
    return lambda: jax.block_until_ready([slope(work.params, part) for part in parts])


def naive_diagonal(work: Workload, size: int) -> Callable[[], Any]:
    """Blocks of ``vmap(grad)``, squared and summed."""

    def loss(params: Any, x: Any, y: Any) -> Any:
        objective = work.objective
        return objective.loss(objective.predict(params, x[None]), y[None])[0]

    @jax.jit
    def squares(params: Any, batch: Batch) -> Any:
        slopes = jax.vmap(jax.grad(loss), (None, 0, 0))
        found = slopes(params, batch.inputs, batch.targets)
        return jax.tree.map(lambda g: jnp.sum(g**2, axis=0), found)

    count = work.batch.weights.shape[0]
    parts = [
        jax.tree.map(lambda leaf, at=at: leaf[at : at + size], work.batch)
        for at in range(0, count, size)
    ]
    return lambda: jax.block_until_ready([squares(work.params, part) for part in parts])


def diagonals(rounds: int) -> None:
    """Empirical Fisher diagonals."""
    works = [(mlp(), None, 32), (cnn(), 256, 32), (cnn(1024, "reference"), 256, 32)]
    works += [(language_model(256), None, 8), (resnet18(32), None, None)]
    for work, size, naive in works:
        diagonal(work, size, naive, rounds)


def diagonal(work: Workload, size: int | None, naive: int | None, rounds: int) -> None:
    """The table of one net; ``size`` as in :func:`gradient`, ``naive`` a block's."""
    ours = ready(
        lambda params, batch: empirical_fisher_diagonal(work.objective, params, batch),
        *(work.params, work.batch),
    )
    contenders = {"gradient, JAX": gradient(work, size), "ours": ours}
    if naive:
        contenders["vmap(grad), JAX"] = naive_diagonal(work, naive)
    if work.name in ("mlp", "cnn", "lm"):
        contenders |= peers.gradients(work) | peers.fisher_diagonals(work)
    seconds = turns(contenders, rounds)
    count = work.batch.weights.shape[0]
    title = f"Empirical Fisher diagonal, {work.name}, {count} examples"
    table(title, "g", seconds, seconds["gradient, JAX"])


def products(rounds: int) -> None:
    """Hessian- and Gauss-Newton-vector products, and a CG solve."""
    for work, cg in ((mlp(), True), (cnn(256), False), (language_model(256), False)):
        vector = jax.tree.map(lambda leaf: jnp.cos(leaf), work.params)
        stack = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), vector)
        contenders = {"gradient, JAX": gradient(work)}
        for name, build in (("Hessian", hessian), ("Gauss-Newton", gauss_newton)):
            once, many, eight = (
                partial(run, build, work.objective)
                for run in (single, repeated, stacked)
            )
            contenders |= {
                f"{name}, one-shot": ready(once, work.params, work.batch, vector),
                f"{name}, 1 + {PRODUCTS}": ready(many, work.params, work.batch, vector),
                f"{name}, block of 8": ready(eight, work.params, work.batch, stack),
            }
        if cg:
            solve = partial(cg_steps, work.objective)
            contenders["20 CG steps, Gauss-Newton"] = ready(
                solve, work.params, work.batch, vector
            )
        seconds = turns(contenders, rounds)
        rows = dict(seconds)
        for name in ("Hessian", "Gauss-Newton"):
            once, many = (
                seconds[f"{name}, one-shot"],
                rows.pop(f"{name}, 1 + {PRODUCTS}"),
            )
            rows[f"{name}, linearised once, each"] = Seconds(
                *((b - a) / PRODUCTS for a, b in zip(once, many, strict=True))
            )
            whole = rows.pop(f"{name}, block of 8")
            rows[f"{name}, block of 8, each"] = Seconds(*(x / 8 for x in whole))
        count = work.batch.weights.shape[0]
        title = f"Products, {work.name}, {count} examples"
        table(title, "g", rows, seconds["gradient, JAX"])


def single(build: Any, objective: Any, params: Any, batch: Any, vector: Any) -> Any:
    """Linearise and multiply once."""
    return build(objective, params, batch)(vector)


def repeated(build: Any, objective: Any, params: Any, batch: Any, vector: Any) -> Any:
    """Linearise once, multiply 1 + PRODUCTS times, one after the other."""
    operator = build(objective, params, batch)

    def step(_: Any, v: Any) -> Any:
        return jax.tree.map(lambda x: 1e-3 * x, operator(v))

    return jax.lax.fori_loop(0, PRODUCTS + 1, step, vector)


def stacked(build: Any, objective: Any, params: Any, batch: Any, stack: Any) -> Any:
    """Linearise once, multiply a block of vectors."""
    return block(build(objective, params, batch), stack)


def cg_steps(objective: Any, params: Any, batch: Any, vector: Any) -> Any:
    """Twenty steps of CG, no early end."""
    operator = damped(gauss_newton(objective, params, batch), 1e-2)
    return conjugate_gradient(operator, vector, tol=0.0, max_steps=20)


def trained(count: int) -> Workload:
    """The MLP after 300 steps on clusters that it can tell apart, not perfectly."""
    start = mlp(count)
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 10, count)
    centres = 0.12 * draw.normal(size=(10, start.batch.inputs.shape[1]))
    noise = draw.normal(size=start.batch.inputs.shape)
    inputs = jnp.asarray(centres[labels] + noise, jnp.float32)
    batch = Batch(inputs, jnp.asarray(labels, jnp.int32), jnp.ones(count))

    @jax.jit
    def step(params: Any, batch: Batch, at: Any) -> Any:
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, 128), batch)
        slope = jax.grad(start.objective.risk)(params, part)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, slope)

    params = start.params
    for index in range(300):
        params = step(params, batch, 128 * index % count)
    return start._replace(params=params, batch=batch)


def kronecker(rounds: int) -> None:
    """EK-FAC: the fit on 2,048 examples, and scores of 64 queries with them."""
    work = trained(2048)
    fit = partial(ekfac, None, work.objective)
    contenders = {
        "gradient, JAX": gradient(work),
        "ours": ready(fit, work.params, work.batch),
    }
    seconds = turns(contenders | ekfac_peers.ekfac_fits(work), rounds)
    table("EK-FAC fit, mlp, 2048 examples", "ours", seconds, seconds["ours"])

    state = jax.jit(fit)(work.params, work.batch)
    queries = jax.tree.map(lambda leaf: leaf[:QUERIES], work.batch)
    damping = 0.1 * float(mean_eigenvalue(state))

    def scores(rank: int | None) -> Callable[[], Any]:
        run = partial(scores_over, work.objective, damping=damping, rank=rank)
        return ready(run, work.params, state, queries, work.batch)

    exact, short = scores(None), scores(8)
    contenders = {"ours, exact": exact, "ours, separable, rank 8": short}
    theirs = ekfac_peers.ekfac_scores(work, queries, damping=damping)
    seconds = turns(contenders | theirs, rounds)
    title = f"EK-FAC scores, {QUERIES} queries with 2048 examples"
    table(title, "ours, exact", seconds, seconds["ours, exact"])
    pairs = list(zip(np.asarray(exact()), np.asarray(short()), strict=True))
    pearson = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
    print(f"\nRank 8 against exact, per query: Pearson {np.median(pearson):.4f} in the")
    print(f"median, {np.min(pearson):.4f} at least.")


def gram(rounds: int) -> None:
    """Inner products of the gradients of all pairs of examples, exactly."""
    for work in (mlp(256), cnn(64), language_model(64)):

        def ours(params: Any, batch: Batch, work: Workload = work) -> Any:
            _, gradients = loss_gradients(work.objective, params, batch)
            return contractions.gram(gradients, gradients)

        def formed(params: Any, batch: Batch, work: Workload = work) -> Any:
            taped, gradients = loss_gradients(work.objective, params, batch)
            leaves = jax.tree.leaves(contractions.dense(taped, gradients))
            count = batch.weights.shape[0]
            flat = jnp.concatenate([x.reshape(count, -1) for x in leaves], axis=1)
            return flat @ flat.T

        contenders = {
            "gradient, JAX": gradient(work),
            "Gram from factors": ready(ours, work.params, work.batch),
            "Gram in blocks": ready(
                partial(gradient_gram, work.objective), work.params, work.batch
            ),
            "gradients formed": ready(formed, work.params, work.batch),
        }
        seconds = turns(contenders, rounds)
        count = work.batch.weights.shape[0]
        title = f"Gram matrix of gradients, {work.name}, {count} examples"
        table(title, "g", seconds, seconds["gradient, JAX"])


def traps(rounds: int) -> None:
    """What XLA does badly on CPU, and the way around it that is taken here."""
    print("\nTraps of XLA on CPU: the naive form over ours\n")
    print("| trap | naive ms | ours ms | naive ÷ ours |\n|---|---:|---:|---:|")
    for name, pair in (
        ("arrays captured by closure, trace and compile", captured()),
        ("gradient of a convolution inside a loop", loops()),
        ("batched products, squared", batched()),
        ("reverse over reverse on convolutions", reverse_twice()),
    ):
        seconds = turns({"naive": pair[0], "ours": pair[1]}, rounds)
        naive, own = seconds["naive"], seconds["ours"]
        print(
            f"| {name} | {1e3 * naive.wall:.1f} | {1e3 * own.wall:.1f} "
            f"| {naive.wall / own.wall:.1f} |",
            flush=True,
        )


def captured() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Making a Hessian product: data folded into the program against arguments."""
    work = cnn(64)
    vector = jax.tree.map(jnp.cos, work.params)

    def folded() -> Any:
        return (
            jax.jit(lambda v: hessian(work.objective, work.params, work.batch)(v))
            .lower(vector)
            .compile()
        )

    def passed() -> Any:
        run = partial(single, hessian, work.objective)
        return jax.jit(run).lower(work.params, work.batch, vector).compile()

    return folded, passed


def loops() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Gradients in a scan, XLA's convolution against ``unlearn_kernels``."""

    def scanned(work: Workload) -> Callable[[], Any]:
        def run(params: Any, batch: Batch) -> Any:
            def step(total: Any, part: Batch) -> Any:
                slope = jax.grad(work.objective.total)(params, part)
                return jax.tree.map(jnp.add, total, slope), None

            parts = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), batch)
            zero = jax.tree.map(jnp.zeros_like, params)
            return jax.lax.scan(step, zero, parts)[0]

        return ready(run, work.params, work.batch)

    return scanned(cnn(64, "reference")), scanned(cnn(64))


def batched() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Per-example products of a sequence layer: one batched dot against a stream."""
    draw = np.random.default_rng(0)
    inputs = jnp.asarray(draw.normal(size=(128, 1, 64, 128)), jnp.float32)
    slopes = jnp.asarray(draw.normal(size=(128, 1, 64, 512)), jnp.float32)
    weights = jnp.ones(128)

    def form(name: str) -> Callable[[], Any]:
        return ready(partial(square_sum, implementation=name), inputs, slopes, weights)

    return form("reference"), form("streamed")


def reverse_twice() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Hessian products of a convolutional net."""
    work = cnn(32, "reference")
    vector = jax.tree.map(jnp.cos, work.params)

    def reverse(params: Any, batch: Batch, vector: Any) -> Any:
        _, back = jax.vjp(lambda p: jax.grad(work.objective.risk)(p, batch), params)
        return back(vector)[0]

    own = cnn(32)
    return (
        ready(reverse, work.params, work.batch, vector),
        ready(partial(single, hessian, own.objective), own.params, own.batch, vector),
    )


PARTS: dict[str, Callable[[int], None]] = {
    "diagonals": diagonals,
    "products": products,
    "ekfac": kronecker,
    "gram": gram,
    "traps": traps,
}

if __name__ == "__main__":
    main()
