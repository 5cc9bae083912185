"""Numbers of many parameters projected onto few by random signs."""

import functools

from jax import Array
from jaxtyping import Float, UInt32

from unlearn_kernels.choice import chosen, fastest
from unlearn_kernels.sign_projection.reference import project_signs_reference
from unlearn_kernels.sign_projection.signs import signs
from unlearn_kernels.sign_projection.triton import project_signs_triton
from unlearn_kernels.tiles import able

__all__ = ["IMPLEMENTATIONS", "project_signs", "signs"]

IMPLEMENTATIONS = {
    "reference": project_signs_reference,
    "triton": project_signs_triton,
}


def project_signs(
    seeds: UInt32[Array, " 2"],
    values: Float[Array, "n p"],
    places: UInt32[Array, " p"],
    *,
    width: int,
    implementation: str | None = None,
) -> Float[Array, "n r"]:
    """Values · S for a matrix S of independent signs, one row for each parameter.

    Args:
        seeds: Two words that S is drawn by.
        values: Of n examples and p parameters.
        places: The parameters' numbers, which choose the rows of S.
        width: r, columns of S.
        implementation: ``"reference"``: S in memory; ``"triton"``: a kernel for GPUs,
            where no memory holds S. ``None`` takes the kernel in programs for GPUs
            where it takes the values.

    Returns:
        Unscaled, in the values' dtype. float32 values are kept to 16 bits, an error of
        some 3e-6 of the result.

    Raises:
        NotImplementedError: ``"triton"`` in a program for no GPU, or for values that
            are neither float32 nor half precision.
        ValueError: no implementation of that name.

    Cost: ``2 n p width`` operations, twice for float32.
    """
    operands = seeds, values, places
    if implementation is not None:
        form = chosen("project_signs", IMPLEMENTATIONS, implementation)
        return form(*operands, width)
    return fastest(
        *operands,
        triton=functools.partial(project_signs_triton, width=width),
        pays=able(values),
        elsewhere=functools.partial(project_signs_reference, width=width),
    )
