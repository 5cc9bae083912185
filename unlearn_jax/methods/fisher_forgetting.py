"""Adds noise to every parameter that the retain set does not pin down."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import fisher_diagonal
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables
from unlearn_kernels.precision import exact_product

FISHERS = ("example", "batch")


@entrance()
def fisher_forgetting(
    learner: Learner,
    *,
    alpha: float = 1e-9,
    fisher: str = "example",
    fisher_batch: int = 32,
) -> Method:
    """Draw θ ~ N(θ original, variance), wide where the Fisher of the retain set is low.

    variance = alpha · min(1 / (F + 1e-8), 1000), 100 in place of 1000 where the last
    axis is as long as there are classes; kernels take its mean over their inputs;
    vectors (biases, norms) and whatever is as long as there are classes get ten times
    as much.

    Args:
        learner: Model and a loss of logits (n, k) and class indices.
        alpha: Noise level [parameter² · F]; 1e-9 to 1e-6 are in use.
        fisher: "example": the diagonal of the Fisher, Σₙ wₙ Σ_y p(y|xₙ) g² / Σₙ wₙ
            with g the gradient of example n at label y. "batch": the mean over batches
            of Σ_y p̄(y) ḡ², with the probabilities and gradients averaged over each
            batch first, as the released code has it.
        fisher_batch: Examples per batch under "batch", part of the definition.

    Batch statistics stay.

    Raises:
        ValueError: unknown ``fisher``, or ``alpha`` or ``fisher_batch`` not positive.

    Cost: classes × retain examples gradients.
    Source: Golatkar et al. 2020, arXiv 1911.04933, as FF of Jia et al. 2023,
        arXiv 2304.04934. Differs: per-example squares by default. Their code also
        zeroes the classifier's entries of a class when as many examples are forgotten
        as a class holds, by random forgetting the last class; that is left out.
    """
    if fisher not in FISHERS:
        raise ValueError(
            f"fisher {fisher!r} is unknown; choose from {', '.join(FISHERS)}"
        )
    if not alpha > 0 or fisher_batch < 1:
        raise ValueError(
            f"alpha and fisher_batch must be positive, got {alpha} and {fisher_batch}"
        )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        objective = bind(learner.model, variables.stats, learner.loss)
        params, retain = variables.params, request.retain
        if fisher == "example":
            diagonal = fisher_diagonal(objective, params, retain)
        else:
            diagonal = batch_label_moment(
                objective, params, retain, batch_size=fisher_batch
            )
        classes = jax.eval_shape(objective.predict, params, retain.inputs).shape[-1]
        noise = tree.random_like(key, params, jax.random.normal)

        def perturb(theta: Array, f: Array, draw: Array) -> Array:
            spread = jnp.sqrt(alpha * noise_variance(f, classes)).astype(theta.dtype)
            return theta + spread * draw

        moved = jax.tree.map(perturb, params, diagonal, noise)
        return variables._replace(params=moved)

    return stateless(forget)


def noise_variance(fisher: Array, classes: int) -> Array:
    """The variance of one leaf before ``alpha``, from its Fisher diagonal."""
    last = fisher.ndim > 0 and fisher.shape[-1] == classes
    variance = jnp.minimum(1.0 / (fisher + 1e-8), 1e2 if last else 1e3)
    if fisher.ndim > 1:
        mean = jnp.mean(variance, axis=-2, keepdims=True)
        variance = jnp.broadcast_to(mean, fisher.shape)
    return variance * (10.0 if last or fisher.ndim <= 1 else 1.0)


def batch_label_moment(
    objective: Objective, params: Params, data: Batch, *, batch_size: int
) -> Params:
    """Squared batch gradients at every label, weighted by its mean probability.

    Not a Fisher diagonal: gradients and probabilities are averaged over each batch
    before they are squared, then the squares over the batches that hold any weight.

    Args:
        objective: With a loss of logits (n, k) and class indices; ``l2`` is left out.
        params: Where the gradients are taken.
        data: Examples with weights; their targets are not read.
        batch_size: Examples per gradient.

    Returns:
        Tree like ``params``, non-negative.

    Cost: k gradients per example.
    """

    def means(batch: Batch, at: Params) -> tuple[Params, Array]:
        batch = present(batch)
        mass = jnp.sum(batch.weights)
        shares = batch.weights / jnp.where(mass > 0, mass, 1)
        chances = jax.nn.softmax(objective.predict(at, batch.inputs), axis=-1)

        def square(label: Array) -> Params:
            def loss(p: Params) -> Array:
                return jnp.sum(shares * _loss_at(objective, p, batch.inputs, label))

            return jax.tree.map(jnp.square, jax.grad(loss)(at))

        mean_chances = exact_product(shares.astype(chances.dtype), chances)
        expected = _expected(square, mean_chances, at)
        return expected, (mass > 0).astype(mass.dtype)

    total, mass = accumulate(means, data, params, batch_size=batch_size)
    return tree.scale(1.0 / jnp.where(mass > 0, mass, 1), total)


def _expected(
    function: Callable[[Array], Params], chances: Array, like: Params
) -> Params:
    """Σ_y chances[y] function(y), one label at a time."""

    def add(label: Any, total: Params) -> Params:
        return tree.axpy(chances[label], function(label), total)

    return jax.lax.fori_loop(0, chances.shape[0], add, tree.zeros_like(like))


def _loss_at(objective: Objective, params: Params, inputs: Any, label: Array) -> Array:
    targets = jnp.full(inputs.shape[:1], label, jnp.int32)
    return objective.loss(objective.predict(params, inputs), targets)
