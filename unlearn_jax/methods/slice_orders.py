"""In which orders the slices of a shard are learnt: rotations, or by what may go."""

from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from unlearn_jax.options import check_number, check_whole

_FORBIDDEN = -1.0


def rotated_orders(slices: int, orders: int) -> Int[np.ndarray, "b l"]:
    """Order b begins at slice b and goes round: for deletions that may hit any slice.

    No two orders have the same slice at the same place, so that a deletion which ends
    one order at its first slice ends no other there.

    Raises:
        ValueError: more orders than slices, of which two would begin alike.
    """
    _check(slices, orders)
    return (np.arange(orders)[:, None] + np.arange(slices)) % slices


def assigned_orders(
    risk: Any, orders: int, *, requests: float = 100.0
) -> Int[np.ndarray, "b l"]:
    """Orders for slices that are deleted from more or less often: the safe ones first.

    Each order puts slice l at the place p(l), from 0, that maximises
    Σ_l (L - p(l)) (1 - c_l)^t: how many stages stand on a slice, times the chance that
    it is whole after t requests. A place that an earlier order gave a slice is not
    given again.

    Args:
        risk: c, (L,): the chance that one request falls into each slice, in [0, 1).
        orders: B, how many.
        requests: t.

    Returns:
        (B, L): slices in the order in which they are learnt.

    Raises:
        ValueError: more orders than slices, or chances that are none.

    Cost: B linear assignments, L³ each.
    Source: the bipartite matching of S3T, Basu Roy Chowdhury et al. 2024, arXiv
        2406.16257. Differs: (1 - c)^t is scaled by the largest, since it is small.
    """
    risk = np.asarray(risk, np.float64)
    if risk.ndim != 1 or not np.all((risk >= 0) & (risk < 1)):
        raise ValueError(
            f"risk is {risk.dtype} of shape {risk.shape}, expected for every slice the "
            "chance of a request, from 0 to below 1: divide by the sum over all slices"
        )
    check_number("requests", requests, least=0.0)
    slices = len(risk)
    _check(slices, orders)
    whole = np.exp(requests * (np.log1p(-risk) - np.log1p(-risk).max()))
    benefit = whole[:, None] * (slices - np.arange(slices))
    found = np.zeros((orders, slices), int)
    for order in found:
        rows, places = linear_sum_assignment(benefit, maximize=True)
        order[places] = rows
        benefit[rows, places] = _FORBIDDEN * slices**2
    return found


def _check(slices: int, orders: int) -> None:
    check_whole("slices", slices)
    check_whole("orders", orders)
    if orders > slices:
        raise ValueError(
            f"got {orders} orders of {slices} slices, expected at most {slices}: two "
            "of them would begin with the same slice; take fewer orders or more slices"
        )
