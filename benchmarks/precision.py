"""What rounded factors cost in sums of per-example gradients, by emulation on a CPU.

    PYTHONPATH=kernels:. python benchmarks/precision.py

Every product that states a precision below the full one has its factors rounded as a
TPU (bfloat16; three passes of its halves for "high") or a GPU (TensorFloat-32) would,
and is summed in float32; a model's own products stay as they are. Errors are relative,
against the same sums in float64 of the same float32 gradients.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.interpreters import mlir as lowering  # where the rule in force is kept
from jax.interpreters import mlir

from benchmarks import workloads
from unlearn_jax.curvature import contractions
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_kernels.precision import summing

ROUNDED = {"bfloat16": 7, "TensorFloat-32": 10}
CASES = (
    ("GPU, high or fast", "high", "TensorFloat-32"),
    ("TPU, high", "high", "three passes"),
    ("TPU, fast", "fast", "bfloat16"),
)
NETS: dict[str, tuple[Any, int]] = {
    "mlp": (workloads.mlp, 256),
    "cnn": (workloads.cnn, 64),
    "lm": (workloads.language_model, 32),
}
_RULES = lowering._platform_specific_lowerings["cpu"]
PLAIN = _RULES.get(lax.dot_general_p, lowering._lowerings[lax.dot_general_p]).rule
"""How products are lowered for CPUs while nothing is emulated."""


def rounded_product(kind: str, a: Any, b: Any, **params: Any) -> Any:
    """A product whose factors lose their last digits."""
    params |= {"precision": (lax.Precision.HIGHEST,) * 2}

    def product(x: Any, y: Any) -> Any:
        return lax.dot_general_p.bind(x, y, **params)

    def cut(x: Any, digits: int) -> Any:
        return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=digits)

    if kind != "three passes":
        return product(*(cut(x, ROUNDED[kind]) for x in (a, b)))
    high = [cut(x, 7) for x in (a, b)]
    low = [cut(x - h, 7) for x, h in zip((a, b), high, strict=True)]
    return product(*high) + product(high[0], low[1]) + product(low[0], high[1])


def emulate(kind: str) -> None:
    """From here on programs for CPUs round as told."""
    full = (None, (lax.Precision.HIGHEST,) * 2)

    def rule(context: Any, a: Any, b: Any, **params: Any) -> Any:
        if params["precision"] in full or context.avals_in[0].dtype != jnp.float32:
            return PLAIN(context, a, b, **params)

        def product(x: Any, y: Any) -> Any:
            return rounded_product(kind, x, y, **params)

        return mlir.lower_fun(product, multiple_results=False)(context, a, b)

    mlir.register_lowering(lax.dot_general_p, rule, platform="cpu")
    jax.clear_caches()


def sums(net: workloads.Workload, dtype: Any) -> dict[str, Any]:
    """Each sum of the net's gradients, formed in float32, added in ``dtype``."""

    def run(params: Any, batch: Any) -> dict[str, Any]:
        taped, found = loss_gradients(net.objective, params, batch)
        found = jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            found,
        )
        direction = jax.tree.map(lambda x: x.astype(dtype), params)
        return {
            "squared sum": contractions.square_sum(taped, found, batch.weights),
            "squared norms": contractions.squared_norms(found),
            "Gram matrix": contractions.gram(found, found),
            "along a direction": contractions.along(taped, found, direction),
            "weighted sum": contractions.weighted_sum(taped, found, batch.weights),
        }

    return jax.jit(run)(net.params, net.batch)


def error(found: Any, truth: Any) -> float:
    """‖found − truth‖ / ‖truth‖ over all leaves."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
    apart, size = 0.0, 0.0
    for a, b in pairs:
        b = np.asarray(b, np.float64)
        apart += np.sum((np.asarray(a, np.float64) - b) ** 2)
        size += np.sum(b**2)
    return float(np.sqrt(apart / size))


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    for name, (make, count) in NETS.items():
        net = make(count)
        as_single = jax.tree.map(
            lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x,
            (net.params, net.batch),
        )
        net = net._replace(params=as_single[0], batch=as_single[1])
        truth = sums(net, jnp.float64)
        table = {"float32 (full)": sums(net, jnp.float32)}
        for title, setting, kind in CASES:
            emulate(kind)
            with summing(setting):
                table[title] = sums(net, jnp.float32)
        mlir.register_lowering(lax.dot_general_p, PLAIN, platform="cpu")
        jax.clear_caches()
        print(f"\n{name}, {count} examples\n")
        print("| sum | " + " | ".join(table) + " |")
        print("|---" * (len(table) + 1) + "|")
        for what in truth:
            errors = [error(found[what], truth[what]) for found in table.values()]
            print(f"| {what} |" + "".join(f" {e:.1e} |" for e in errors))


if __name__ == "__main__":
    main()
