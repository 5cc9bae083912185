"""SynFlow: which weights carry the most flow, seen without any data."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.methods.masked import Mask, largest
from unlearn_jax.methods.pruning import is_kernel, kernel_count
from unlearn_jax.models.model import Model
from unlearn_jax.types import Array, Params, Variables

ROUNDS = 100


def synaptic_flow(model: Model, variables: Variables, inputs: Any) -> Params:
    """θ ∂R/∂θ at |θ|: what of the flow R passes through each parameter.

    R is the sum of the outputs for one input of ones, every parameter taken as its
    size. In a net of rectified linear units without biases the sums over all layers are
    equal: R itself.

    Args:
        model: In evaluation mode.
        variables: Of it; batch statistics that make its norms do nothing.
        inputs: What an input looks like; any number of examples.

    Returns:
        Tree like the parameters, non-negative where activations do not fall.

    Cost: one gradient of one example.
    """

    def ones(leaf: Any) -> Array:
        return jnp.ones((1, *leaf.shape[1:]), leaf.dtype)

    one = jax.tree.map(ones, inputs)
    sizes = jax.tree.map(jnp.abs, variables.params)

    def flow(params: Params) -> Array:
        return jnp.sum(model.apply(variables._replace(params=params), one))

    return jax.tree.map(jnp.multiply, jax.grad(flow)(sizes), sizes)


def synflow_mask(
    model: Model, variables: Variables, inputs: Any, sparsity: float, *, axes: int = 2
) -> Mask:
    """Which weights SynFlow leaves, in a hundred rounds.

    In round i the share (1 − sparsity)^(i/100) of the weights with the largest flow is
    kept, with what is gone set to zero; what has fewer ``axes`` is kept.

    Args:
        model: In evaluation mode.
        variables: As for :func:`synaptic_flow`.
        inputs: As there.
        sparsity: Share of the weights to remove, from 0 to less than 1 (no unit).
        axes: What a weight is, see :func:`unlearn_jax.methods.pruning.prune`.

    Cost: a hundred gradients of one example, and sorts of the parameters.
    Source: Tanaka et al. 2020, arXiv 2006.05467, algorithm 1. Differs: weights are kept
        by rank, not by a threshold, so that exactly so many are.
    """
    kernels = is_kernel(variables.params, axes)
    total = kernel_count(variables.params, axes)
    whole = tree.size(variables.params)

    def one(index: Any, mask: Mask) -> Mask:
        left = tree.where(mask, variables.params, tree.zeros_like(variables.params))
        flow = synaptic_flow(model, variables._replace(params=left), inputs)
        scores = jax.tree.map(
            lambda f, m, k: (
                jnp.where(m, f, -jnp.inf) if k else jnp.full_like(f, jnp.inf)
            ),
            flow,
            mask,
            kernels,
        )
        kept = (1 - sparsity) ** ((index + 1) / ROUNDS)
        count = whole - total + jnp.round(kept * total).astype(jnp.int32)
        return largest(scores, jnp.where(index + 1 < ROUNDS, count, last))

    last = whole - round(sparsity * total)
    everything = jax.tree.map(lambda p: jnp.ones(p.shape, bool), variables.params)
    return jax.lax.fori_loop(0, ROUNDS, one, everything)
