"""Sums of squared per-example gradients from layer inputs and output slopes."""

from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.fisher_diagonal.reference import square_sum_reference
from unlearn_kernels.fisher_diagonal.streamed import (
    square_sum_single,
    square_sum_streamed,
)

__all__ = ["IMPLEMENTATIONS", "square_sum"]

IMPLEMENTATIONS = {
    "reference": square_sum_reference,
    "streamed": square_sum_streamed,
    "single": square_sum_single,
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
            examples; ``"reference"``: all examples' gradients at once. ``None`` takes
            the first where it applies, else the second in programs for CPUs and the
            third in others, when they are lowered.

    Returns:
        One number for each weight of the layer.

    Raises:
        NotImplementedError: ``"single"`` with more than one position.
        ValueError: no implementation of that name.

    Cost: ``2 n g t i o`` operations.
    """
    if implementation is None:
        if inputs.shape[2] != 1:
            return lax.platform_dependent(
                *(inputs, slopes, weights),
                cpu=square_sum_streamed,
                default=square_sum_reference,
            )
        implementation = "single"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"square_sum has no implementation {implementation!r}; choose one of "
            f"{', '.join(IMPLEMENTATIONS)}, or None for the fastest"
        )
    if implementation == "single" and inputs.shape[2] != 1:
        raise NotImplementedError(
            f"'single' needs one position, got {inputs.shape[2]}; take 'streamed'"
        )
    return IMPLEMENTATIONS[implementation](inputs, slopes, weights)
