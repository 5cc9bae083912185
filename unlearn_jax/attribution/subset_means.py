"""Empirical leave-one-out: models that saw an example against models that did not."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.attribution.attribution import Attribution, Evidence, need
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.members import (
    MemberShares,
    linear_in_members,
    masks_of,
)
from unlearn_jax.train.recipe import Learner
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Estimate, PRNGKey
from unlearn_kernels.precision import exact_product


def subset_means(masks: Any, outputs: Any) -> Estimate:
    """Mean output of the members with an example, less that of those without it.

    Args:
        masks: (m, n) of 0 and 1.
        outputs: (m, q).

    Returns:
        Estimate of two arrays (q, n). The standard error takes both groups for equally
        spread (pooled variance, m − 2 degrees of freedom), so that a group may be a
        single member. An example that is in all members or in none has effect zero and
        an infinite standard error, as have all with less than three members.

    Raises:
        ValueError: shapes that do not fit.

    Cost: 2 m n q; memory some arrays of q n numbers.
    Source: Feldman & Zhang 2020, arXiv 2008.03703, §2. Differs: any outputs, a standard
        error.
    """
    outputs = jnp.asarray(outputs)
    dtype = jnp.result_type(outputs.dtype, jnp.float32)
    masks = jnp.asarray(masks).astype(dtype)
    if masks.ndim != 2 or outputs.ndim != 2 or len(masks) != len(outputs):
        raise ValueError(
            f"got masks {masks.shape} and outputs {outputs.shape}, expected (m, n) and "
            f"(m, q): one row per member"
        )
    centred = outputs.astype(dtype)
    centred = centred - jnp.mean(centred, axis=0, keepdims=True)
    m, counts = len(masks), jnp.sum(masks, axis=0)
    known = _both(masks)
    value = exact_product(centred.T, mean_shares(masks))
    # The two groups leave what their means do not explain of the whole.
    between = jnp.where(known, counts * (m - counts) / m, 0)
    whole = jnp.sum(jnp.square(centred), axis=0)
    within = jnp.maximum(whole[:, None] - between[None] * jnp.square(value), 0)
    if m < 3:
        return Estimate(value, jnp.full_like(value, jnp.inf))
    spread = within / (m - 2) / jnp.where(known, between, 1)[None]
    return Estimate(value, jnp.where(known[None], jnp.sqrt(spread), jnp.inf))


def mean_shares(masks: Any) -> Float[Array, "m n"]:
    """What each member's output counts in each example's difference of means."""
    masks = jnp.asarray(masks)
    m, counts = len(masks), jnp.sum(masks, axis=0)
    inside = masks / jnp.maximum(counts, 1)[None]
    outside = (1 - masks) / jnp.maximum(m - counts, 1)[None]
    return jnp.where(_both(masks)[None], inside - outside, 0)


@entrance()
def empirical_leave_one_out(
    learner: Learner, *, reference: str = "members", batch_size: int = 256
) -> Attribution:
    """Effects as differences of means over models with and without an example.

    Args:
        learner: Its model is applied.
        reference: What the mean over members without an example is compared with.
            "members": the mean over members with it, for random subsets. "models": the
            mean over ``evidence.models``; with members that each lack one example this
            is true retraining.
        batch_size: Queries whose activations are held at once.

    Reads ``evidence.ensemble``, and under "models" ``evidence.models``. An example that
    no member lacks (or, under "members", that none has) has effect zero. For standard
    errors call :func:`subset_means` on outputs.

    Raises:
        ValueError: an unknown reference; when prepared, no ensemble.

    Cost: prepare: m n numbers. Effects: a forward pass of each member over the queries
        and 2 m n q.
    Source: Feldman & Zhang 2020, arXiv 2008.03703, §2. Differs: any output function.
    """
    if reference not in ("members", "models"):
        raise ValueError(
            f"reference {reference!r} is unknown; choose 'members' or 'models'"
        )

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> MemberShares:
        del key
        need(evidence, "ensemble")
        assert evidence.ensemble is not None
        masks, models = masks_of(evidence, train), evidence.ensemble.models
        if reference == "members":
            return MemberShares(mean_shares(masks), models)
        lacking = 1 - masks
        counts = jnp.sum(lacking, axis=0)
        without = -lacking / jnp.maximum(counts, 1)[None]
        full = leading_axis(evidence.models)
        shares = jnp.concatenate(
            [jnp.full((full, masks.shape[1]), 1 / full, masks.dtype), without]
        )
        shares = jnp.where((counts > 0)[None], shares, 0)
        models = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), evidence.models, models
        )
        return MemberShares(shares, models)

    return linear_in_members(learner, prepare, batch_size=batch_size)


def _both(masks: Array) -> Array:
    """Whether some members have an example and some lack it."""
    counts = jnp.sum(masks, axis=0)
    return (counts > 0) & (counts < len(masks))
