"""First-order change of parameters and outputs when example weights change.

The parameters θ(w) minimise the risk R(θ) = Σₙ wₙ ℓₙ(θ) / W + l2/2 ‖θ‖², W = Σₙ wₙ. At
the minimum, with H the Hessian of R,

    ∂θ/∂wₙ = −H⁻¹ (∇ℓₙ + l2 θ) / W.

The l2 term is the change of W: a mean over more examples pulls less towards zero. So
adding weight moves θ against the example's gradient, and taking example n out, a change
of −wₙ, moves θ by + wₙ H⁻¹ (∇ℓₙ + l2 θ) / W.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import along
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.data.accumulate import collect, mass, present, widened
from unlearn_jax.loop import repeat
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered, seen
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, Weights

Inverted = TypeVar("Inverted")


@automatic
def influence_on_parameters(
    objective: Objective,
    params: Params,
    data: Batch,
    weights_change: Weights,
    inverse: Callable[[Any], Inverted],
    *,
    batch_size: int = 256,
) -> Inverted:
    """−H⁻¹ Σₙ Δwₙ (∇ℓₙ + l2 θ) / W: the change of θ for a change Δw of the weights.

    Args:
        objective: Loss bound to frozen batch statistics, and l2.
        params: θ, the minimum of the risk on ``data``. Elsewhere the formula is only
            what influence functions make of it.
        data: The examples with their weights before the change.
        weights_change: Δw (n,); −w takes an example out. An example without any
            change is never seen, whatever it holds; the result is linear in Δw, but
            its derivative by a Δw of zero leaves the example out too and is that of
            l2 alone: take the value at a unit change instead.
        inverse: v ↦ H⁻¹ v on trees like the parameters, H the Hessian of the risk on
            ``data``, l2 included, or an approximation of it: a dense solve, conjugate
            gradients, a Kronecker-factored inverse.
        batch_size: Examples whose activations are held at once.

    Returns:
        What ``inverse`` gives: the change of the parameters, to be added to them, or a
        solver's ``Solution`` of it; wrong by terms of second order in Δw.

    Raises:
        ValueError: not one change for each example, or what is not of the form that
            ``train.door`` tells.

    Cost: one gradient for each example whose weight changes (in whole batches), and one
        product with the inverse.
    Source: Koh & Liang 2017, arXiv 1703.04730, §2. Differs: a weighted mean with l2,
        so that weights of any size and padding are served.
    """
    params, data = entered(
        "influence_on_parameters", objective, params, data, alone=True
    )
    weights_change = widened(weights_change)
    if weights_change.shape != data.weights.shape:
        raise ValueError(
            f"weights_change has shape {weights_change.shape} for weights of shape "
            f"{data.weights.shape}; give one change for each example"
        )

    def part(batch: Batch, at: Params) -> Params:
        slope = jax.grad(objective.total)(at, seen(objective, at, batch))
        # JAX's gradient by complex numbers points the other way.
        return jax.tree.map(jnp.conj, slope)

    slope = _over_changed(part, data, weights_change, params, batch_size)
    slope = tree.axpy(objective.l2 * jnp.sum(weights_change), params, slope)
    return inverse(tree.scale(-1.0 / mass(data.weights), slope))


def _over_changed(
    function: Callable[[Batch, Params], Params],
    data: Batch,
    change: Array,
    params: Params,
    batch_size: int,
) -> Params:
    """Sum of a function of batches over the examples whose weight changes, only them.

    Their number is traced: a request of a hundred examples costs a hundred gradients,
    however large the data. Batches beyond them are passed over, not cut off, since a
    loop of traced length has no reverse mode.
    """
    n = change.shape[0]
    size = min(batch_size, n)
    count = jnp.sum(change != 0)
    order = jnp.argsort(change == 0, stable=True)

    def body(i: Any, total: Params, carried: Any) -> Params:
        inputs, targets, change, order, count, params = carried
        position = i * size + jnp.arange(size)
        rows = order[jnp.minimum(position, n - 1)]
        weights = jnp.where(position < count, change[rows], 0)
        inputs, targets = jax.tree.map(lambda leaf: leaf[rows], (inputs, targets))
        batch = Batch(inputs, targets, weights)
        return jax.lax.cond(
            i * size < count,
            lambda: tree.add(total, function(batch, params)),
            lambda: total,
        )

    inputs, targets = jax.tree.map(jnp.asarray, (data.inputs, data.targets))
    carried = (inputs, targets, change, order, count, params)
    return repeat(-(-n // size), body, tree.zeros_like(params), carried)


@automatic
def influence_on_outputs(
    objective: Objective,
    params: Params,
    train: Batch,
    queries: Batch,
    output_fn: Callable[[Any, Any], Any] | None,
    inverse: Callable[[Any], Any],
    *,
    batch_size: int = 256,
    query_batch_size: int = 64,
) -> Float[Array, "q n"]:
    """∂f_q/∂wₙ: what weight added to a training example does to a query's output.

    −∇f_q · H⁻¹ (∇ℓₙ + l2 θ) / W. Times −1 it predicts the change of f_q when the
    example is left out; summed over a group, that of the whole group.

    Args:
        objective: Loss bound to frozen batch statistics, and l2.
        params: θ, the minimum of the risk on ``train``.
        train: Training examples with weights; a column is zero where the weight is.
        queries: Examples to explain; a row is zero where the weight is.
        output_fn: ``(outputs, targets) -> (n,)``, one value per example: a margin, a
            logit. None takes the objective's loss, without l2.
        inverse: v ↦ H⁻¹ v on trees like the parameters, symmetric; called under
            ``vmap``. See :func:`influence_on_parameters`.
        batch_size: Training examples whose layer inputs and slopes are held at once.
        query_batch_size: Queries whose gradients and inverse products are held at once.

    Returns:
        One row per query, one column per training example.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: for each query one gradient and one product with the inverse; for each block
        of queries one gradient per training example, and for each pair a product with
        each layer's factors. Memory: query_batch_size vectors like the parameters and
        the factors of one training batch, never examples × parameters.
    Source: Koh & Liang 2017, arXiv 1703.04730, eq. 2. Differs: any output function, a
        weighted mean with l2, per-example gradients kept factored.
    """
    found, _ = influence_and_told(
        objective,
        params,
        train,
        queries,
        output_fn,
        lambda vector: (inverse(vector), None),
        batch_size=batch_size,
        query_batch_size=query_batch_size,
    )
    return found


def influence_and_told(
    objective: Objective,
    params: Params,
    train: Batch,
    queries: Batch,
    output_fn: Callable[[Any, Any], Any] | None,
    inverse: Callable[[Any], tuple[Any, Any]],
    *,
    batch_size: int = 256,
    query_batch_size: int = 64,
) -> tuple[Float[Array, "q n"], Any]:
    """As :func:`influence_on_outputs`, for an inverse that tells how it ended.

    Args:
        objective: As there, like all that follow but one.
        params: θ.
        train: Training examples with weights.
        queries: Examples to explain.
        output_fn: One value per example, or None.
        inverse: v ↦ (H⁻¹ v, what it tells: arrays).
        batch_size: Of training examples.
        query_batch_size: Of queries.

    Returns:
        The influences, and what was told, with a leading axis of queries.
    """
    value = objective.loss if output_fn is None else output_fn
    explained = objective._replace(loss=value)
    what = "influence_on_outputs"
    params, train = entered(what, objective, params, train, alone=True)
    _, queries = entered(f"{what} (queries)", explained, params, queries)
    train, queries = (jax.tree.map(jnp.asarray, batch) for batch in (train, queries))
    share = 1.0 / mass(train.weights)

    def slopes_along(batch: Batch, at: Params, direction: Params) -> Array:
        tape, gradients = loss_gradients(objective, at, present(batch))
        return along(tape, gradients, direction)

    def explain(query: Batch) -> tuple[Array, Any]:
        def output(at: Params) -> Array:
            alone = jax.tree.map(lambda leaf: leaf[None], query)
            outputs = objective.predict(at, alone.inputs)
            return value(outputs, alone.targets)[0]

        slope = jax.tree.map(jnp.conj, jax.grad(output)(params))
        direction, told = inverse(slope)
        # Nothing here depends on the query but the direction: under ``map`` in blocks
        # the gradients of a training batch are computed once for all of them.
        scores = collect(slopes_along, train, params, direction, batch_size=batch_size)
        scores = -share * (scores + objective.l2 * tree.dot(direction, params))
        kept = (train.weights != 0) & (query.weights != 0)
        return jnp.where(kept, scores, 0).astype(scores.dtype), told

    return jax.lax.map(explain, present(queries), batch_size=query_batch_size)
