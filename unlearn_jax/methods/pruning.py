"""Magnitude pruning, and methods that run on what is left of a model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from unlearn_jax import tree
from unlearn_jax.methods.masked import Mask, largest, under_mask
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


def prune(params: Params, sparsity: float, *, axes: int = 2) -> tuple[Params, Mask]:
    """Set the smallest weights to zero, by one ranking over all kernels.

    Args:
        params: Of the model.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit);
            rounded to a whole number of them.
        axes: Leaves of so many axes or more are kernels, the others stay as they are.
            2: every matrix and convolution; 4: convolutions over images alone.

    Returns:
        The pruned parameters, and which of them are left.

    Raises:
        ValueError: ``sparsity`` is outside [0, 1), or there is no kernel.
    """
    check_sparsity(sparsity)
    kernels, total = is_kernel(params, axes), kernel_count(params, axes)

    def size(leaf: Array, kernel: bool) -> Array:
        return jnp.abs(leaf) if kernel else jnp.full_like(jnp.abs(leaf), jnp.inf)

    count = tree.size(params) - round(sparsity * total)
    mask = largest(jax.tree.map(size, params, kernels), count)
    return tree.where(mask, params, tree.zeros_like(params)), mask


def is_kernel(params: Params, axes: int) -> PyTree[bool]:
    """Tree like the parameters: whether a leaf has so many axes or more."""
    return jax.tree.map(lambda p: jnp.ndim(p) >= axes, params)


def kernel_count(params: Params, axes: int) -> int:
    """Number of weights in all kernels.

    Raises:
        ValueError: there is no kernel.
    """
    leaves = jax.tree.leaves(params)
    total = sum(leaf.size for leaf in leaves if jnp.ndim(leaf) >= axes)
    if not total:
        raise ValueError(
            f"no parameter has {axes} axes or more, so there is nothing to prune; the "
            f"largest has {max(map(jnp.ndim, leaves), default=0)}: lower axes"
        )
    return total


def check_sparsity(sparsity: float) -> None:
    """Refuse a share that is none, or leaves nothing.

    Raises:
        ValueError: ``sparsity`` is outside [0, 1).
    """
    check_number("sparsity", sparsity, least=0.0)
    if sparsity >= 1:
        raise ValueError(
            f"sparsity must be less than 1, the share of the weights to remove, got "
            f"{sparsity}: lower it"
        )


def with_pruning(
    factory: Callable[..., Method],
    learner: Learner,
    *,
    sparsity: float = 0.95,
    axes: int = 2,
    **options: Any,
) -> Method:
    """Any method, on the model without its smallest weights, which stay at zero.

    Args:
        factory: Builds the method from a learner: ``finetune``, ``ssd``, …
        learner: Model, loss and recipe.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit).
        axes: What a weight is, see :func:`prune`.
        **options: Hyper-parameters of the method.

    The model is pruned before ``prepare`` and at every request; nothing repairs it but
    the method. Batch statistics move if the method moves them.

    Raises:
        ValueError: ``sparsity`` is outside [0, 1), no whole number of ``axes``, or a
            method that reads a trace; from ``forget``, when there is no kernel.

    Cost: the method's, and a sort of the parameters.
    Source: one-shot magnitude pruning (OMP) of Jia et al. 2023, arXiv 2304.04934, who
        prune convolutions alone (``axes`` 4). Differs: they then train the pruned
        model anew from an early checkpoint, on everything, before a request comes.
    """
    check_sparsity(sparsity)
    check_whole("axes", axes)

    def choose(
        key: PRNGKey, variables: Variables, request: Request
    ) -> tuple[Params, Mask]:
        del key, request
        return prune(variables.params, sparsity, axes=axes)

    method = under_mask(factory, learner, choose, **options)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Any:
        params, _ = prune(original.params, sparsity, axes=axes)
        return method.prepare(key, original._replace(params=params), train)

    return method._replace(prepare=prepare)
