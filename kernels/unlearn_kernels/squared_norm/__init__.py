"""Squared norms of per-example gradients from layer inputs and output slopes."""

from jax import Array
from jaxtyping import Float

from unlearn_kernels.choice import chosen, fastest
from unlearn_kernels.squared_norm.forms import squared_norm_pairs, squared_norm_streamed
from unlearn_kernels.squared_norm.reference import squared_norm_reference
from unlearn_kernels.squared_norm.triton import squared_norm_triton
from unlearn_kernels.tiles import MOST_POSITIONS, able

__all__ = ["IMPLEMENTATIONS", "squared_norm"]

IMPLEMENTATIONS = {
    "reference": squared_norm_reference,
    "pairs": squared_norm_pairs,
    "streamed": squared_norm_streamed,
    "triton": squared_norm_triton,
}


def squared_norm(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    *,
    implementation: str | None = None,
) -> Float[Array, " n"]:
    """‖Σₜ inputsₙₜ ⊗ slopesₙₜ‖² for each example: of one layer's gradients.

    Args:
        inputs: Layer inputs: examples, groups, positions, numbers in.
        slopes: Derivatives with respect to the layer's outputs.
        implementation: ``"pairs"`` of positions; ``"streamed"``: a loop over examples;
            ``"triton"``: a kernel for GPUs; ``"reference"``: all examples' gradients at
            once. ``None`` takes the first where that is the least work, else the
            second in programs for CPUs, the third in those for GPUs where it takes the
            operands, and the fourth elsewhere.

    Raises:
        NotImplementedError: ``"triton"`` in a program for no GPU, or for operands that
            are neither float32 nor half precision.
        ValueError: no implementation of that name.

    Cost: ``2 n g t min(t (i + o), i o)`` operations.
    """
    if implementation is not None:
        return chosen("squared_norm", IMPLEMENTATIONS, implementation)(inputs, slopes)
    _, _, t, i = inputs.shape
    o = slopes.shape[3]
    if t * (i + o) < i * o:
        return squared_norm_pairs(inputs, slopes)
    return fastest(
        *(inputs, slopes),
        triton=squared_norm_triton,
        pays=t <= MOST_POSITIONS and able(inputs, slopes),
        elsewhere=squared_norm_reference,
        cpu=squared_norm_streamed,
    )
