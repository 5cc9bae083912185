"""Natural-gradient steps until the forget set is as unknown as what was never seen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.attribution.trace import Trace, losses_of
from unlearn_jax.attribution.unseen import Unseen, unseen_loss
from unlearn_jax.curvature.kronecker_blocks import Kronecker
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.data.accumulate import accumulate, present
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.removal import stiffness_of
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Scalar, Variables


class Ascent(NamedTuple):
    """Value: what is known before a request.

    Attributes:
        matrix: EK-FAC at the original.
        mean: Mean gradient ∇R_all there, without l2.
        unseen: Losses of what has not been learned.
        original: The model whose losses these are set against.
    """

    matrix: Kronecker
    mean: Params
    unseen: Unseen
    original: Variables


class Walk(NamedTuple):
    """Value: two points of the walk and the losses of the forget set there."""

    before: Params
    params: Params
    loss_before: Scalar
    loss: Scalar
    slope: Params
    steps: Array


@entrance()
def natural_ascent(
    learner: Learner,
    *,
    nats: float = 5.0,
    steps: int = 50,
    batch_size: int = 256,
) -> Method:
    """θ ← θ + t (F + (l2 + 1/T) I)⁻¹ (∇R_forget(θ) − ∇R_all), until R_forget ≥ goal.

    F is the EK-FAC matrix of the trace, 1/T as in :mod:`unlearn_jax.methods.removal`,
    ∇R_all that of the original: there the difference is W_r / W of that between forget
    and retain set, and no retained example is read. The length t puts each step d on
    the border of a trust region of outputs: ½ dᵀF d, the mean KL divergence to second
    order, is nats / W, so that over the training set of weight W the log-likelihood
    changes by ``nats``.

    Goal is the loss that the forgotten labels would have if they had not been learned,
    see :mod:`unlearn_jax.attribution.unseen`. Nothing is read of a retrained model or
    of a test set.

    Args:
        learner: Model, loss, l2 and recipe that the original was trained with.
        nats: Radius, in nats over all training examples. A likelihood-ratio test at 5 %
            could just tell a change of 2 (χ² of one freedom / 2 = 1.92); 2 and 5 end
            at the same gaps, 5 in fewer steps.
        steps: At most.
        batch_size: Examples whose activations are held at once.

    The last step ends where the loss, interpolated, meets the goal. Batch statistics
    stay.

    Returns:
        Method that reads a trace; its state is an Ascent.

    Raises:
        ValueError: a recipe of "adam", whose steps have no rate.

    Cost: prepare, nothing beyond the trace; forget, one gradient per forget example and
        step.
    Source: no single one; natural gradient of Amari 1998 with the matrix of George et
        al. 2018, arXiv 1806.03884, in the trust region of Schulman et al. 2015,
        arXiv 1502.05477.
    """
    learner = as_trained(learner)
    stiffness = stiffness_of(learner, None)

    def objective_of(variables: Variables) -> Objective:
        return bind(learner.model, variables.stats, learner.loss)

    def prepare(
        key: PRNGKey, original: Variables, train: Batch, trace: Trace
    ) -> Ascent:
        del key, train
        return Ascent(trace.last, trace.slope, trace.unseen, original)

    def forget(
        key: PRNGKey, state: Ascent, variables: Variables, request: Request
    ) -> tuple[Variables, Ascent]:
        del key
        objective, start = objective_of(variables), variables.params
        own = losses_of(learner, state.original, request.forget)
        goal, _ = unseen_loss(state.unseen, *request, own)
        whole = sum(jnp.sum(part.weights) for part in request)
        damping = learner.l2 + stiffness(request)
        inverse = kronecker_inverse(state.matrix, damping=damping)
        product = kronecker_operator(state.matrix, start).matvec
        radius = nats / jnp.where(whole > 0, whole, 1)

        def known(params: Params) -> tuple[Scalar, Params]:
            given = objective, params, request.forget
            return loss_and_slope(*given, batch_size=batch_size)

        def going(walk: Walk) -> Array:
            return (walk.loss < goal) & (walk.steps < steps)

        def step(walk: Walk) -> Walk:
            length, direction = _to_border(
                inverse(tree.subtract(walk.slope, state.mean)), product, radius
            )
            params = tree.axpy(length, direction, walk.params)
            loss, slope = known(params)
            return Walk(walk.params, params, walk.loss, loss, slope, walk.steps + 1)

        loss, slope = known(start)
        zero = jnp.zeros((), jnp.int32)
        begin = Walk(start, start, loss, loss, slope, zero)
        walk = jax.lax.while_loop(going, step, begin)
        moved = _at_goal(walk, goal)
        # A loop that met NaN ends; what it found must not look like a model.
        sound = jnp.isfinite(walk.loss) & tree.all_finite(state.mean)
        moved = jax.tree.map(lambda leaf: jnp.where(sound, leaf, jnp.nan), moved)
        return variables._replace(params=moved), state

    return Method(prepare, forget, reads_trace=True)


def loss_and_slope(
    objective: Objective, params: Params, data: Batch, *, batch_size: int
) -> tuple[Scalar, Params]:
    """Mean loss and its gradient, from one pass."""

    def part(batch: Batch, at: Params) -> tuple[Scalar, Params]:
        return jax.value_and_grad(objective.total)(at, present(batch))

    total = accumulate(part, data, params, batch_size=batch_size)
    mass = jnp.sum(data.weights)
    loss, slope = tree.scale(1 / jnp.where(mass > 0, mass, 1), total)
    return loss, slope


def _to_border(
    direction: Params, product: Callable[[Any], Any], radius: Scalar
) -> tuple[Scalar, Params]:
    """The multiple of a direction d at which ½ dᵀF d is the radius."""
    bend = 0.5 * tree.dot(direction, product(direction))
    tiny = jnp.finfo(bend.dtype).tiny
    return jnp.sqrt(radius / jnp.maximum(bend, tiny)), direction


def _at_goal(walk: Walk, goal: Scalar) -> Params:
    """Back on the last step to where the loss, as a line, is the goal."""
    rise = walk.loss - walk.loss_before
    over = (walk.loss > goal) & (rise > 0)
    share = jnp.where(over, (goal - walk.loss_before) / jnp.where(over, rise, 1), 1)
    last = tree.subtract(walk.params, walk.before)
    met = tree.axpy(jnp.clip(share, 0, 1), last, walk.before)
    return tree.where(over & (walk.steps > 0), met, walk.params)
