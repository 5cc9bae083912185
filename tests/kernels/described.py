"""What a named program is, and the shapes that it is made for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Made = tuple[Callable[..., Any], tuple[Any, ...]]


class Program(NamedTuple):
    """Description: ``make() -> (function, shapes of its arguments)``.

    Attributes:
        name: Room first, then what it does, then the net.
        make: Called where the platform is targeted, since states have its shapes.
        double: Whether it is worth making in float64 too.
    """

    name: str
    make: Callable[[], Made]
    double: bool = False


def shaped(tree: Any) -> Any:
    """Shapes of arrays, float64 as float32 where it is off."""

    def one(leaf: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct(leaf.shape, dtype)

    return jax.tree.map(one, tree)


def real() -> Any:
    """float64 where it is on."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def key_shape(*shape: int) -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape))
