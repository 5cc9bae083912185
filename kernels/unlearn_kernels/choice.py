"""Which form of an operation is taken, by its name."""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array, lax

from unlearn_kernels.target import target_platform


def chosen(
    operation: str, implementations: Mapping[str, Callable[..., Any]], name: str
) -> Callable[..., Any]:
    """The form of this name.

    Raises:
        NotImplementedError: "triton" in a program that is made for no GPU.
        ValueError: there is no such form; says which there are.
    """
    if name not in implementations:
        raise ValueError(
            f"{operation} has no implementation {name!r}; choose one of "
            f"{', '.join(implementations)}, or None for the fastest"
        )
    platform = target_platform()
    if name == "triton" and platform != "gpu":
        raise NotImplementedError(
            f"the Triton form of {operation} needs a GPU, and this program is made for "
            f"a {platform}; take 'reference', or None for the fastest"
        )
    return implementations[name]


def fastest(
    *operands: Array,
    triton: Callable[..., Array],
    pays: bool,
    elsewhere: Callable[..., Array],
    cpu: Callable[..., Array] | None = None,
) -> Array:
    """The kernel for GPUs where it pays, a form for CPUs if there is one, or the other.

    A kernel is traced in programs for GPUs alone: it costs as much as a whole layer.
    """
    if pays and target_platform() == "gpu":
        return lax.platform_dependent(
            *operands, cuda=triton, rocm=triton, default=elsewhere
        )
    if cpu is None:
        return elsewhere(*operands)
    return lax.platform_dependent(*operands, cpu=cpu, default=elsewhere)
