"""One policy: which contraction takes which precision, and why.

Left to themselves accelerators round the factors of a float32 product, TPUs to the 8
digits of bfloat16, GPUs since Ampere to the 11 of TensorFloat-32; CPUs do not.

* **A model's own products**, forwards, backwards and along tangents: as the model and
  ``jax.default_matmul_precision`` say. Nothing here touches them, so curvature is that
  of the function that was trained.
* **Sums of per-example gradients** (diagonals, norms, Gram matrices, products with a
  direction, weighted sums): ``summed()``, in full. Rounded factors cost a relative
  2⁻¹¹ or 2⁻⁸ where terms add up, as in squares, and more where they cancel, as in inner
  products of gradients. :func:`summing` is the switch for who wants speed.
* **Factors, eigenbases, rotations, inverses; inner products and bases of solvers; ridge
  regression; kernels of Gaussian processes**: ``EXACT``, whatever the switch says. Here
  an error is multiplied by a condition number, and orthogonality is what is relied on.
* **Random projections**: signs are exact in bfloat16, values go in as two halves of
  it: 16 digits, far below the noise of the projection itself.

Whatever the factors are, sums are carried in at least float32.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import DTypeLike

__all__ = [
    "EXACT",
    "as_outside",
    "contracts",
    "exact_product",
    "exactly",
    "summed",
    "summing",
    "wide",
]

P = ParamSpec("P")
R = TypeVar("R")
EXACT = lax.Precision.HIGHEST

_NAMES = {"full": "highest", "high": "high", "fast": "default"}
# Part of the key of every cache of traces, as in ``target``.
_asked = jax.make_user_context(default_value="full")


def summing(setting: str) -> AbstractContextManager[None]:
    """How sums of per-example gradients treat their factors, inside of a context.

    Args:
        setting: "full": float32 (six passes of bfloat16 on TPUs). "high": three passes
            there, TensorFloat-32 on GPUs. "fast": whatever the device does by itself.
            The losses of accuracy stand in docs/curvature.md.

    Raises:
        ValueError: no such setting.
    """
    if setting not in _NAMES:
        raise ValueError(
            f"there is no setting {setting!r}; expected one of {', '.join(_NAMES)}"
        )
    return _asked(setting)


def summed() -> lax.Precision:
    """Precision of the products in a sum of per-example gradients."""
    return lax.Precision[_NAMES[_asked.value].upper()]


def contracts(function: Callable[P, R]) -> Callable[P, R]:
    """Products that a function states without a precision take that of sums."""

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with jax.default_matmul_precision(_NAMES[_asked.value]):
            return function(*args, **options)

    return run


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Products that a function states without a precision are full ones.

    Not around a function that calls a model.
    """

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **options)

    return run


def as_outside(function: Callable[P, R]) -> Callable[P, R]:
    """The function with the precision that holds here, wherever it is called.

    For a function that calls a model, within what is made of full products.
    """
    here = getattr(jax.config, "jax_default_matmul_precision", None)

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with jax.default_matmul_precision(here):
            return function(*args, **options)

    return run


def exact_product(a: Any, b: Any) -> Array:
    """Matrix product in full precision, also where a device rounds by default."""
    return jnp.matmul(a, b, precision=EXACT)


def wide(*values: Array | DTypeLike) -> jnp.dtype:
    """The dtype that sums are carried in: at least float32."""
    return jnp.promote_types(jnp.result_type(*values), jnp.float32)
