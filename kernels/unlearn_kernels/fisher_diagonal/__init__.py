"""Sums of squared per-example gradients from layer inputs and output slopes."""

from jax import Array
from jaxtyping import Float

from unlearn_kernels.choice import chosen, fastest
from unlearn_kernels.fisher_diagonal.reference import square_sum_reference
from unlearn_kernels.fisher_diagonal.streamed import (
    square_sum_single,
    square_sum_streamed,
)
from unlearn_kernels.fisher_diagonal.triton import square_sum_triton
from unlearn_kernels.tiles import MOST_POSITIONS, able

__all__ = ["IMPLEMENTATIONS", "square_sum"]

IMPLEMENTATIONS = {
    "reference": square_sum_reference,
    "streamed": square_sum_streamed,
    "single": square_sum_single,
    "triton": square_sum_triton,
}


def square_sum(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
    *,
    implementation: str | None = None,
) -> Float[Array, "g i o"]:
    """Σₙ wₙ (Σₜ inputsₙₜ ⊗ slopesₙₜ)², the diagonal of a Fisher block.

    Args:
        inputs: Layer inputs: examples, groups, positions, numbers in.
        slopes: Derivatives with respect to the layer's outputs.
        weights: One for each example.
        implementation: ``"single"`` for one position; ``"streamed"``: a loop over
            examples; ``"triton"``: a kernel for GPUs; ``"reference"``: all examples'
            gradients at once, which XLA for TPUs fuses with their squares and sum.
            ``None`` takes the first where it applies, else the second in programs for
            CPUs, the third in those for GPUs where it takes the operands, and the
            fourth elsewhere.

    Returns:
        One number for each weight of the layer.

    Raises:
        NotImplementedError: ``"single"`` with more than one position; ``"triton"`` in
            a program for no GPU, or for operands neither float32 nor half precision.
        ValueError: no implementation of that name.

    Cost: ``2 n g t i o`` operations.
    """
    positions = inputs.shape[2]
    if implementation is None and positions != 1:
        return fastest(
            *(inputs, slopes, weights),
            triton=square_sum_triton,
            pays=positions <= MOST_POSITIONS and able(inputs, slopes),
            elsewhere=square_sum_reference,
            cpu=square_sum_streamed,
        )
    name = implementation or "single"
    form = chosen("square_sum", IMPLEMENTATIONS, name)
    if name == "single" and positions != 1:
        raise NotImplementedError(
            f"'single' needs one position, got {positions}; take 'streamed'"
        )
    return form(inputs, slopes, weights)
