"""TRAK's features of the mlp by traker and by us, in one run.

Features are the projected gradients of the losses of 256 examples, gradients included;
for the exact form, their inner products. Run it from the folder of the checkout:
``python benchmarks/trak_features.py``.
"""

import argparse
import importlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from curvature_peers import has, module, tensors, torch, unwarned, use_all_cores
from timing import Seconds, table, turns
from workloads import Workload, mlp

from unlearn_jax.attribution.projection import project
from unlearn_jax.curvature.contractions import gram
from unlearn_jax.curvature.per_example import loss_gradients

EXAMPLES = 256
PEER = "traker 0.3.2 BasicProjector"
EXACT = "ours, exact inner products"


def main() -> None:
    """Print a table for each width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="*", default=[2048, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    workload = mlp(EXAMPLES)
    exact = jax.jit(gram_of(workload))
    products = np.asarray(exact(workload.params, workload.batch), np.float64)
    for width in args.widths:
        calls: dict[str, Callable[[], Any]] = {}
        if args.peer:
            calls[PEER] = traker(workload, width)
        for kind in ("dense", "sketch"):
            calls[f"ours, {kind}"] = ours(workload, kind, width)
        calls[EXACT] = lambda: jax.block_until_ready(
            exact(workload.params, workload.batch)
        )
        seconds, found = measured(calls, args.rounds)
        base = seconds.get(PEER, seconds["ours, dense"])
        title = f"TRAK features of {EXAMPLES} examples, k = {width:,}"
        table(title, PEER if args.peer else "ours, dense", seconds, base)
        print("\n| contender | CPU ratio | correlation, all pairs | distinct pairs |")
        print("|---|---:|---:|---:|")
        for name, values in found.items():
            estimate = products if name == EXACT else values @ values.T
            whole, apart = correlations(estimate, products)
            ratio = base.cpu / seconds[name].cpu
            print(f"| {name} | {ratio:.1f} | {whole:.4f} | {apart:.4f} |", flush=True)


def measured(
    calls: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, Seconds], dict[str, np.ndarray]]:
    """Times and results; the peer is called once, the others take turns."""
    found: dict[str, np.ndarray] = {}
    timed: dict[str, Callable[[], Any]] = dict(calls)
    seconds: dict[str, Seconds] = {}
    if PEER in calls:
        # Nothing compiles in it: one call is enough of half a minute.
        peer = timed.pop(PEER)
        wall, cpu = time.perf_counter(), time.process_time()
        found[PEER] = np.asarray(peer(), np.float64)
        seconds[PEER] = Seconds(time.perf_counter() - wall, time.process_time() - cpu)

    def kept(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            found[name] = call()

        return run

    seconds |= turns({name: kept(name, call) for name, call in timed.items()}, rounds)
    return seconds, {name: np.asarray(x, np.float64) for name, x in found.items()}


def ours(workload: Workload, kind: str, width: int) -> Callable[[], Any]:
    """Gradients and their projection, compiled."""

    @jax.jit
    def features(params: Any, batch: Any) -> Any:
        key = jax.random.key(0)
        found = loss_gradients(workload.objective, params, batch)
        return project(key, *found, kind=kind, width=width)

    return lambda: jax.block_until_ready(features(workload.params, workload.batch))


def gram_of(workload: Workload) -> Callable[[Any, Any], Any]:
    """All inner products of the gradients, exactly."""

    def products(params: Any, batch: Any) -> Any:
        _, found = loss_gradients(workload.objective, params, batch)
        return gram(found, found)

    return products


def traker(workload: Workload, width: int) -> Callable[[], Any]:
    """vmap(grad) by torch.func and traker's projector for CPU, as traker calls them.

    Scaled by 1 / √k, so that inner products are those of gradients.
    """
    if not has("torch", "trak"):
        raise SystemExit("install torch and traker, or pass --no-peer")
    use_all_cores()
    with unwarned():
        projectors = importlib.import_module("trak.projectors")
    inputs, targets = tensors(workload.batch, "mlp")
    net = module(workload)
    params = {name: value.detach() for name, value in net.named_parameters()}
    size = sum(value.numel() for value in params.values())

    def loss(p: Any, x: Any, y: Any) -> Any:
        outputs = torch.func.functional_call(net, p, (x[None],))
        return torch.nn.functional.cross_entropy(outputs, y[None])

    slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    projector = projectors.BasicProjector(
        grad_dim=size,
        proj_dim=width,
        seed=0,
        proj_type=projectors.ProjectionType.rademacher,
        device="cpu",
    )

    def run() -> Any:
        with unwarned(), torch.no_grad():
            found = slopes(params, inputs, targets)
            rows = torch.cat([value.flatten(1) for value in found.values()], dim=1)
            return projector.project(rows, model_id=0).numpy() / width**0.5

    return run


def correlations(estimate: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Of inner products with the exact ones: all pairs, and pairs of two examples."""
    apart = np.triu_indices(len(exact), 1)
    return (
        float(np.corrcoef(estimate.ravel(), exact.ravel())[0, 1]),
        float(np.corrcoef(estimate[apart], exact[apart])[0, 1]),
    )


if __name__ == "__main__":
    main()
