"""Sparse models to unlearn from: pruned, set back to an early checkpoint, trained."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.trace import Trace
from unlearn_jax.methods.guard import guarded
from unlearn_jax.methods.masked import Mask, under_mask
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.pruning import check_sparsity, is_kernel, prune
from unlearn_jax.methods.synflow import synflow_mask
from unlearn_jax.options import check_whole
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables

PRUNINGS = ("magnitude", "iterative", "synflow")
EACH = 0.2
"""Share of the weights left that a round of iterative pruning removes."""


def with_rewinding(
    factory: Callable[..., Method],
    learner: Learner,
    *,
    pruning: str = "magnitude",
    sparsity: float = 0.95,
    axes: int = 2,
    **options: Any,
) -> Method:
    """Any method, on a sparse model that was trained before a request came.

    The original says which weights are left; these are set back to the first checkpoint
    of the trace and trained on everything, by the learner's recipe, the others at zero.
    Requests begin at this model, not at the one that they are given.

    Args:
        factory: Builds the method from a learner: ``finetune``, ``ssd``, …
        learner: Model, loss, l2 and recipe that the original was trained with.
        pruning: "magnitude": the smallest weights go at once (OMP). "iterative": a
            fifth of those left at a time, with such a training after each (IMP).
            "synflow": those with the least synaptic flow, which no data say.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit).
        axes: What a weight is, see :func:`unlearn_jax.methods.pruning.prune`.
        **options: Hyper-parameters of the method.

    Batch statistics move in the trainings, and if the method moves them.

    Returns:
        Method that reads a trace; its state is the sparse model and the method's.

    Raises:
        ValueError: an unknown ``pruning``, ``sparsity`` outside [0, 1), no whole number
            of ``axes``, or a method that reads a trace; from ``prepare``, no kernel.

    Cost: prepare, a training run, for "iterative" log(1 − sparsity) / log 0.8 of them
        (14 at 0.95); forget, the method's.
    Source: "prune first, then unlearn" of Jia et al. 2023, arXiv 2304.04934, by OMP,
        IMP (Frankle & Carbin) and SynFlow of Tanaka et al. 2020, arXiv 2006.05467.
        Differs: the trace's first checkpoint stands for their eighth epoch, and the
        recipe is run as a whole from there; they prune convolutions alone (``axes`` 4).
    """
    if pruning not in PRUNINGS:
        raise ValueError(
            f"pruning {pruning!r} is unknown; choose from {', '.join(PRUNINGS)}"
        )
    check_sparsity(sparsity)
    check_whole("axes", axes)
    shares = rounds_of(sparsity) if pruning == "iterative" else (sparsity,)

    def left(
        key: PRNGKey, variables: Variables, request: Request
    ) -> tuple[Params, Mask]:
        del key, request
        kernels = is_kernel(variables.params, axes)
        return variables.params, jax.tree.map(
            lambda p, kernel: (p != 0) | (not kernel), variables.params, kernels
        )

    method = under_mask(factory, learner, left, **options)

    def prepare(key: PRNGKey, original: Variables, train: Batch, trace: Trace) -> Any:
        early = jax.tree.map(lambda leaf: leaf[0, 0], trace.points)
        at = original
        for number, share in enumerate(shares):
            own = jax.random.fold_in(key, number)
            if pruning == "synflow":
                fresh = original._replace(stats=learner.model.init(own).stats)
                mask = synflow_mask(
                    learner.model, fresh, train.inputs, share, axes=axes
                )
            else:
                _, mask = prune(at.params, share, axes=axes)
            at = retrained(own, learner, train, early, mask)
        return at, method.prepare(key, at, train)

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        del variables
        sparse, own = state
        moved, own = method.forget(key, own, sparse, request)
        return moved, (moved, own)

    return guarded(learner, Method(prepare, forget, reads_trace=True))


def rounds_of(sparsity: float) -> tuple[float, ...]:
    """Sparsities after each round of iterative pruning, the last as asked."""
    if sparsity == 0:
        return (0.0,)
    count = max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - EACH) - 1e-9))
    return (*(1 - (1 - EACH) ** number for number in range(1, count)), sparsity)


def retrained(
    key: PRNGKey, learner: Learner, train: Batch, early: Variables, mask: Mask
) -> Variables:
    """A training run from a checkpoint; what the mask leaves out is and stays zero."""
    start = tree.where(mask, early.params, tree.zeros_like(early.params))
    pace = jax.tree.map(lambda kept: kept.astype(jnp.float32), mask)
    return fit(key, learner, train, start=early._replace(params=start), pace=pace)
