"""Rearrangements of an array as plain numbers, there and back.

A step is ("reshape", sizes), ("transpose", order) or ("flip", axes). Steps are hashable
and hold no arrays, so that they may be part of the structure of a value.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_kernels.varying import varying_axes

Step: TypeAlias = tuple[str, tuple[int, ...]]
Steps: TypeAlias = tuple[Step, ...]


def forward(steps: Sequence[Step], value: Any) -> Any:
    """The rearranged array."""
    for kind, numbers in steps:
        if kind == "reshape":
            value = value.reshape(numbers)
        elif kind == "transpose":
            value = value.transpose(numbers)
        else:
            value = jnp.flip(value, numbers)
    return value


def backward(steps: Sequence[Step], shape: Sequence[int], value: Any) -> Any:
    """The array of that shape whose rearrangement is ``value``."""
    like: Any = jax.ShapeDtypeStruct(tuple(shape), value.dtype)
    if varying_axes(value):
        like = jnp.zeros_like(value, shape=tuple(shape))
    return jax.linear_transpose(lambda x: forward(steps, x), like)(value)[0]


def shape_after(steps: Sequence[Step], shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what the steps make of an array."""
    like = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    return jax.eval_shape(lambda x: forward(steps, x), like).shape


def for_each_row(steps: Sequence[Step], rows: int) -> Steps:
    """The same steps for every row of an array with one axis more in front."""
    lifted = []
    for kind, numbers in steps:
        if kind == "reshape":
            lifted.append((kind, (rows, *numbers)))
        else:
            moved = tuple(number % len(numbers) + 1 for number in numbers)
            lifted.append((kind, (0, *moved) if kind == "transpose" else moved))
    return tuple(lifted)
