"""Cheap approximate inverses, and whether a damping is large enough."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.curvature.operator import check_like
from unlearn_jax.loop import tracing
from unlearn_jax.solvers.refinement import epsilon
from unlearn_jax.solvers.solution import CONVERGED, DAMPING
from unlearn_jax.types import Array, Params


def identity(vector: Params) -> Params:
    """No preconditioning."""
    return vector


def diagonal_preconditioner(
    diagonal: Params, *, damping: Any, exponent: float = 1.0
) -> Callable[[Any], Any]:
    """The map v -> v / (diagonal + damping)^exponent, entry by entry.

    Args:
        diagonal: Of the matrix or of a relative of it, such as the Fisher diagonal.
        damping: Added to every entry, in the units of the diagonal.
        exponent: 1 for the inverse; 0.5 or 0.75 where the diagonal is noisy (no unit).

    Returns:
        Function from vectors to vectors of the same dtypes; build it inside ``jit``.

    Raises:
        ValueError: concrete values of which some entry plus damping is not positive;
            the function is then called with another tree.

    Cost: one pass over the parameters.
    Source: Jacobi; the exponent as in Martens 2010, ICML (0.75).
    """
    if not tracing(diagonal, damping):
        lowest = min(
            (float(np.min(leaf)) for leaf in jax.tree.leaves(diagonal) if leaf.size),
            default=1.0,
        )
        if not lowest + float(damping) > 0:
            raise ValueError(
                f"damping {float(damping):g} is too small for a diagonal whose lowest "
                f"entry is {lowest:g}: their sum must be positive; raise it"
            )

    def apply(vector: Params) -> Params:
        check_like(diagonal, vector)
        return jax.tree.map(
            lambda v, d: (v * (d + damping) ** -exponent).astype(v.dtype),
            vector,
            diagonal,
        )

    return apply


def check_damping(damping: Any, what: str = "curvature") -> None:
    """Refuse a damping that is zero, negative or not finite, where it is known.

    Raises:
        ValueError: the value and what to change.
    """
    if tracing(damping):
        return
    values = np.asarray(damping, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"damping {damping} of the {what} is not finite; give a positive number"
        )
    if not np.all(values > 0):
        raise ValueError(
            f"damping {damping} is too small for the {what}, which may be singular; "
            f"raise it above 0"
        )


def damping_code(damping: Any, largest: Any, vector: Params) -> Array:
    """Whether a damping can be seen beside the largest eigenvalue, as a code.

    A + δ I and A are the same numbers once δ falls below the rounding of the largest
    eigenvalue; the δ directions of such a solve are noise.

    Args:
        damping: δ.
        largest: Largest eigenvalue of A, or an estimate of it.
        vector: Any tree in the dtypes that A acts on.

    Returns:
        ``CONVERGED`` where it can be seen, ``DAMPING`` where it is lost in rounding.
    """
    seen = jnp.asarray(damping) > epsilon(vector) * jnp.asarray(largest)
    return jnp.where(seen, CONVERGED, DAMPING).astype(jnp.int32)
