"""Diagonals of Fisher and Gauss-Newton matrices, and a batch-mean relative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import square_sum
from unlearn_jax.curvature.label_slopes import output_eigenpairs
from unlearn_jax.curvature.per_example import (
    block_size,
    loss_gradients,
    per_example,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params, PRNGKey


def empirical_fisher_diagonal(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Weighted mean over examples of squared per-example gradients.

    F[i] = Σₙ wₙ (∂ℓₙ/∂θᵢ)² / Σₙ wₙ, labels as given, ``l2`` left out.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: Examples with weights; zero weight leaves an example out.
        batch_size: Examples whose layer inputs and slopes are held at once; None takes
            as many as fit the cache on CPU, or a gigabyte elsewhere.
        mesh: Split the examples over its devices.

    Returns:
        Tree like ``params``, in its dtypes; zero when no example has weight.

    Cost: about one gradient per example, see ``benchmarks/curvature.py``; memory:
        inputs and slopes of the layers for one batch, never examples × parameters.
    Source: the diagonal of the empirical Fisher as in Kunstner et al. 2019,
        arXiv 1905.12558, eq. 3. As published.
    """

    def squares(batch: Batch, at: Params) -> Params:
        batch = present(batch)
        taped, gradients = loss_gradients(objective, at, batch)
        return square_sum(taped, gradients, batch.weights)

    return _mean(squares, objective, params, data, (), batch_size, mesh)


def fisher_diagonal(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Diagonal of the Fisher: squared gradients of log p, expected under the model.

    F[i] = Σₙ wₙ Σ_c p(c|xₙ) (∂ log p(c|xₙ)/∂θᵢ)² / Σₙ wₙ with p the softmax of the
    outputs; targets are not read.

    Args:
        objective: Its outputs are logits (n, k); its loss is not read.
        params: Where.
        data: Examples with weights.
        batch_size: As in :func:`empirical_fisher_diagonal`.
        mesh: Split the examples over its devices.

    Raises:
        ValueError: outputs are not (n, k); take :func:`sampled_fisher_diagonal`.

    Cost: one forward and k backward passes.
    Source: Martens 2020, arXiv 1412.1193, §5. Exact over the labels.
    """
    nll = objective._replace(loss=cross_entropy)
    return gauss_newton_diagonal(
        nll, params, _unlabelled(data), batch_size=batch_size, mesh=mesh
    )


def sampled_fisher_diagonal(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    samples: int = 1,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """:func:`fisher_diagonal` with labels drawn from the model: an unbiased estimate.

    Args:
        key: Draws the labels.
        objective: Its outputs are logits (n, …, k), a distribution over k at each
            position; ``loss`` is not read. An example's log-likelihood is the mean
            over its positions, as in ``sequence_nll``.
        params: Where.
        data: Examples with weights.
        samples: Draws for each example.
        batch_size: As in :func:`empirical_fisher_diagonal`.
        mesh: Split the examples over its devices; the draws stay the same.

    Raises:
        ValueError: ``samples`` below 1.

    Cost: one forward and ``samples`` backward passes.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    numbers = jnp.arange(leading_axis(data))
    numbered = Batch(data.inputs, numbers, data.weights)

    def squares(batch: Batch, at: Params, key: PRNGKey) -> Params:
        batch = present(batch)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(batch.targets)
        linear = per_example(objective.predict, at, batch.inputs)
        probabilities = jax.nn.softmax(linear.outputs)
        positions = probabilities[0, ..., 0].size

        def one(total: Params, draw: Any) -> tuple[Params, None]:
            own = jax.vmap(lambda k: jax.random.fold_in(k, draw))(keys)
            labels = jax.vmap(jax.random.categorical)(own, linear.outputs)
            hot = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=kind)
            gradients = linear.pull((probabilities - hot) / positions)
            own_sum = square_sum(linear.tape, gradients, batch.weights)
            return tree.add(total, own_sum), None

        kind = probabilities.dtype
        zero = tree.zeros_like(at)
        total, _ = jax.lax.scan(one, zero, jnp.arange(samples))
        return tree.scale(1.0 / samples, total)

    return _mean(squares, objective, params, numbered, (key,), batch_size, mesh)


def gauss_newton_diagonal(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Exact diagonal of the Gauss-Newton matrix of the mean loss, ``l2`` left out.

    G[i] = Σₙ wₙ Σ_c λ_c (J_nᵀ v_c)[i]² / Σₙ wₙ over the eigenpairs of the loss's
    Hessian in an example's outputs, so any loss will do, convex or not.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where.
        data: Examples with weights.
        batch_size: As in :func:`empirical_fisher_diagonal`.
        mesh: Split the examples over its devices.

    Raises:
        ValueError: outputs are not (n, k): a Hessian over all positions of a sequence
            would be needed.

    Cost: one forward and k backward passes, and a k × k eigenproblem for each example.
    Source: Dangel et al. 2020 (BackPACK), arXiv 1912.10985, §3. Differs: eigenvectors
        in place of a Cholesky factor, so losses need not be convex.
    """
    outputs = jax.eval_shape(objective.predict, params, data.inputs)
    if len(outputs.shape) != 2:
        raise ValueError(
            f"an exact diagonal needs outputs (n, k), got shape {outputs.shape}; take "
            f"sampled_fisher_diagonal, or hutchinson_diagonal of gauss_newton"
        )

    def squares(batch: Batch, at: Params) -> Params:
        batch = present(batch)
        linear = per_example(objective.predict, at, batch.inputs)

        pairs = output_eigenpairs(objective, linear.outputs, batch.targets)

        def one(total: Params, pair: Any) -> tuple[Params, None]:
            vector, value = pair
            gradients = linear.pull(vector)
            scaled = batch.weights * value
            return tree.add(total, square_sum(linear.tape, gradients, scaled)), None

        return jax.lax.scan(one, tree.zeros_like(at), pairs)[0]

    return _mean(squares, objective, params, data, (), batch_size, mesh)


def batch_gradient_moment(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int,
    moment: Callable[[Any], Any] = jnp.square,
) -> Params:
    """Mean over batches of ``moment`` of the gradient of the batch's mean loss.

    Not a Fisher diagonal: averaging b examples before squaring shrinks the part of the
    square that comes from their scatter by about 1/b. Values from different batch sizes
    are different quantities.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the gradients are taken.
        data: Examples with weights, in the order given; a batch without weight is left
            out of the mean, a partly filled one counts fully.
        batch_size: Examples per gradient (part of the definition, not of the memory).
        moment: ``jnp.square`` or ``jnp.abs``.

    Returns:
        Tree like ``params``.

    Cost: one gradient per example.
    Source: the importance of Foster et al. 2024, arXiv 2308.07707, as their released
        code computes it.
    """
    bare = objective._replace(l2=0.0)

    def one_batch(batch: Batch, at: Params) -> tuple[Params, Array]:
        slope = jax.grad(bare.risk)(at, present(batch))
        counts = (jnp.sum(batch.weights) > 0).astype(jnp.int32)
        return jax.tree.map(moment, slope), counts

    total, batches = accumulate(one_batch, data, params, batch_size=batch_size)
    return tree.scale(1.0 / jnp.maximum(batches, 1), total)


def _mean(
    squares: Callable[..., Params],
    objective: Objective,
    params: Params,
    data: Batch,
    constants: tuple[Any, ...],
    batch_size: int | None,
    mesh: Mesh | None,
) -> Params:
    """Sum over batches, divided by the sum of the weights."""
    if batch_size is None:
        taped = tape(objective.predict, params, data.inputs)
        batch_size = block_size(taped, leading_axis(data))
    total = accumulate(
        squares, data, params, *constants, batch_size=batch_size, mesh=mesh
    )
    mass = jnp.sum(data.weights)
    return tree.scale(1.0 / jnp.where(mass > 0, mass, 1), total)


def _unlabelled(data: Batch) -> Batch:
    n = leading_axis(data)
    return Batch(data.inputs, jnp.zeros((n,), jnp.int32), data.weights)
