"""What became of a request to a ridge regression: applied, or refused and why."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

REFUSALS = (
    "applied",
    "not positive definite: without these rows the Gram matrix would have a negative "
    "eigenvalue, so they were never learned, or not with this weight; remove exactly "
    "what was added",
    "not finite: a row, target or weight is NaN or infinite, or a weight is negative; "
    "clean the rows",
    "too ill-conditioned: the weights would carry an error above the bound; raise l2, "
    "use float64, or the Gram form",
    "more weight removed than was ever added: some rows were never learned",
    "no room for further pending rows: refresh the inverse first",
    "too large to be forgotten again: beside l2, or beside what is within, a row, its "
    "weight or its target outweighs the digits of the dtype; scale the rows and "
    "targets, raise l2, use float64, or the Gram form",
)
APPLIED, INDEFINITE, NOT_FINITE, ILL_CONDITIONED, TOO_MUCH, FULL, TOO_LARGE = range(
    len(REFUSALS)
)


class RefusedError(ValueError):
    """A request that was not applied; the state is as it was before."""


def check_applied(state: Any) -> Any:
    """The state, if its latest request was applied.

    Args:
        state: Any ridge state, outside of ``jit``; of a stack, every member is read.

    Raises:
        RefusedError: the latest request was refused; the reason is told.
    """
    codes = np.unique(np.asarray(state.code))
    refused = [REFUSALS[code] for code in codes if code != APPLIED]
    if refused:
        raise RefusedError(f"refused, the state is unharmed: {'; '.join(refused)}")
    return state


def settle(before: Any, after: Any, code: Array) -> Any:
    """The state after a request, or the one before it with the reason; under ``jit``.

    Args:
        before: A ridge state.
        after: Of the same structure.
        code: Index into ``REFUSALS``.
    """
    applied = code == APPLIED
    chosen = jax.tree.map(lambda a, b: jnp.where(applied, a, b), after, before)
    return chosen._replace(code=code.astype(jnp.int32))
