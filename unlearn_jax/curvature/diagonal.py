"""Diagonals of Fisher and Gauss-Newton matrices, and a batch-mean relative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import square_sum, zeros_for_squares
from unlearn_jax.curvature.label_slopes import output_factors
from unlearn_jax.curvature.per_example import (
    block_size,
    loss_gradients,
    per_example,
)
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, mass, present
from unlearn_jax.loop import scan
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import check_losses, entered, seen
from unlearn_jax.train.loss import (
    SEQUENCE_LOSSES,
    cross_entropy,
    sequence_nll_sum,
    squared_norm,
)
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params, PRNGKey


@automatic
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
        data: Examples with weights; zero leaves an example out, a negative one takes it
            off.
        batch_size: Examples whose layer inputs and slopes are held at once; None takes
            as many as fit the cache on CPU, or a gigabyte elsewhere.
        mesh: Split the examples over its devices.

    Returns:
        Tree like ``params``, in its dtypes; zero when no example has weight. Of a
        complex parameter the squared length, a real number.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells, such as examples
            that depend on one another.

    Cost: about one gradient per example, see ``benchmarks/curvature.py``; memory:
        inputs and slopes of the layers for one batch, never examples × parameters.
    Source: the diagonal of the empirical Fisher as in Kunstner et al. 2019,
        arXiv 1905.12558, eq. 3. As published.
    """
    params, data = entered(
        "empirical_fisher_diagonal", objective, params, data, alone=True
    )

    def squares(batch: Batch, at: Params) -> Params:
        batch = seen(objective, at, batch)
        taped, gradients = loss_gradients(objective, at, batch)
        return square_sum(taped, gradients, batch.weights)

    return _mean(squares, objective, params, data, (), batch_size, mesh)


@automatic
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


@automatic
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
            position. An example's loss is the mean of the negative log-likelihoods
            over its positions; under ``sequence_nll`` and ``sequence_nll_sum`` (their
            sum) ignored positions are left out, any other loss is not read. This is the
            diagonal of ``gauss_newton`` then.
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
    ignoring = objective.loss in SEQUENCE_LOSSES
    params, data = entered(
        "sampled_fisher_diagonal", objective, params, data, loss=ignoring, alone=True
    )
    numbers = jnp.arange(leading_axis(data))
    targets = data.targets if ignoring else jnp.zeros_like(numbers)
    read = objective if ignoring else objective._replace(loss=squared_norm)
    numbered = data._replace(targets=(targets, numbers))

    def squares(batch: Batch, at: Params, key: PRNGKey) -> Params:
        targets, numbers = batch.targets
        batch = seen(read, at, batch._replace(targets=targets))
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        linear = per_example(objective.predict, at, batch.inputs)
        probabilities = jax.nn.softmax(linear.outputs)
        kept = jnp.ones(probabilities.shape[:-1], bool)
        if ignoring:
            kept = batch.targets >= 0
        positions = jnp.sum(kept.reshape(len(kept), -1), axis=1)
        # A mean over positions: squares of their independent slopes add to 1 / count.
        summed = objective.loss is sequence_nll_sum
        counts = jnp.ones_like(positions) if summed else jnp.maximum(positions, 1)
        roots = jnp.sqrt(counts).reshape(-1, *(1,) * (kept.ndim - 1))
        shares = (kept / roots)[..., None].astype(probabilities.dtype)

        def one(total: Params, draw: Any) -> tuple[Params, None]:
            own = jax.vmap(lambda k: jax.random.fold_in(k, draw))(keys)
            labels = jax.vmap(jax.random.categorical)(own, linear.outputs)
            hot = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=kind)
            gradients = linear.pull(shares * (probabilities - hot))
            own_sum = square_sum(linear.tape, gradients, batch.weights)
            return tree.add(total, own_sum), None

        kind = probabilities.dtype
        total, _ = scan(one, zeros_for_squares(at), jnp.arange(samples), at)
        return tree.scale(1.0 / samples, total)

    return _mean(squares, objective, params, numbered, (key,), batch_size, mesh)


@automatic
def gauss_newton_diagonal(
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """Exact diagonal of the Gauss-Newton matrix of the mean loss, ``l2`` left out.

    G[i] = Σₙ wₙ Σ_c λ_c (J_nᵀ v_c)[i]² / Σₙ wₙ with Σ_c λ_c v_c v_cᵀ the loss's Hessian
    in an example's outputs, so any loss will do, convex or not. Of a loss of this
    library no λ is negative, nor is the diagonal where weights are not.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where.
        data: Examples with weights.
        batch_size: As in :func:`empirical_fisher_diagonal`.
        mesh: Split the examples over its devices.

    Raises:
        ValueError: outputs are not (n, k), nor (n, t, k) of a loss of sequences: a
            Hessian over all positions would be needed.

    Cost: one forward and k backward passes, and for a loss of one's own a k × k
        eigenproblem for each example. Of sequences t · k passes, and (t k)² numbers for
        each example of a block: for small vocabularies; else take
        :func:`sampled_fisher_diagonal`.
    Source: Dangel et al. 2020 (BackPACK), arXiv 1912.10985, §3. Differs: for losses
        of one's own eigenvectors in place of a Cholesky factor, so that they need not
        be convex.
    """
    what = "gauss_newton_diagonal"
    params, data = entered(what, objective, params, data, loss=False, alone=True)
    outputs = jax.eval_shape(objective.predict, params, data.inputs)
    sequences = objective.loss in SEQUENCE_LOSSES and len(outputs.shape) == 3
    if len(outputs.shape) != 2 and not sequences:
        raise ValueError(
            f"an exact diagonal needs outputs (n, k), got shape {outputs.shape}; take "
            f"sampled_fisher_diagonal, or hutchinson_diagonal of gauss_newton"
        )
    check_losses(what, objective, params, data)

    def squares(batch: Batch, at: Params) -> Params:
        batch = seen(objective, at, batch)
        linear = per_example(objective.predict, at, batch.inputs)
        pairs = output_factors(objective, linear.outputs, batch.targets)

        def one(total: Params, pair: Any) -> tuple[Params, None]:
            vector, value = pair
            gradients = linear.pull(vector)
            scaled = batch.weights * value
            return tree.add(total, square_sum(linear.tape, gradients, scaled)), None

        return scan(one, zeros_for_squares(at), pairs, at)[0]

    return _mean(squares, objective, params, data, (), batch_size, mesh)


@automatic
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
        data: Examples with weights, in the order given. Those of weight zero take no
            place in a batch: the same as without their rows. The last batch, where
            only partly filled, counts fully.
        batch_size: Examples per gradient (part of the definition, not of the memory).
        moment: ``jnp.square`` or ``jnp.abs``.

    Returns:
        Tree like ``params``.

    Cost: one gradient per example, rows gathered one batch at a time.
    Source: the importance of Foster et al. 2024, arXiv 2308.07707, as their released
        code computes it.
    """
    params, data = entered("batch_gradient_moment", objective, params, data)
    bare = objective._replace(l2=0.0)

    weights = jnp.asarray(data.weights)
    order = jnp.argsort(weights == 0, stable=True)  # what is there comes first
    rows = jax.tree.map(jnp.asarray, (data.inputs, data.targets))

    def one_batch(places: Batch, at: Params, rows: Any) -> tuple[Params, Array]:
        inputs, targets = jax.tree.map(lambda leaf: leaf[places.inputs], rows)
        slope = jax.grad(bare.risk)(at, present(Batch(inputs, targets, places.weights)))
        some = jnp.any(places.weights != 0).astype(jnp.int32)
        return jax.tree.map(moment, slope), some

    places = Batch(order, order, weights[order])
    total, batches = accumulate(one_batch, places, params, rows, batch_size=batch_size)
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
    share = 1.0 / mass(data.weights)

    def mean(leaf: Array, like: Array) -> Array:
        return (share * leaf).astype(jnp.finfo(like.dtype).dtype)

    return jax.tree.map(mean, total, params)


def _unlabelled(data: Batch) -> Batch:
    n = leading_axis(data.inputs)
    return Batch(data.inputs, jnp.zeros((n,), jnp.int32), data.weights)
