"""What training can leave behind for removals: its way, curvatures, mean gradients.

SOURCE (see :mod:`unlearn_jax.attribution.source`) says how a change of weights runs
through training. With the forget set gone, the mean gradient at a point of the way
changes by

    ∇R_retain − ∇R_all = −W_f / W_r (∇R_forget − ∇R_all),

W_f and W_r the weights of the sets. A net trained without it makes as many passes, so
W_r / W times as many steps, W = W_f + W_r, and each of the others pulls as often as
before: over a segment of rates ρ and curvature H

    δ ← exp(−ρ H) δ + (I − exp(−ρ H)) H⁻¹ W_f / W (∇R_forget − ∇R_all).

With ∇R_all and H in the trace, a request reads the forget set alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.attribution.flow import divide, mean_ekfac, propagators
from unlearn_jax.attribution.unseen import Unseen, foreign_losses
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_blocks import Kronecker
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.data.batch import sample
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import Pieces, fit_trajectory
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Scalar, Variables

LEFT_OUT = 0.1
"""Share of the training examples that a model of its own does without."""


class Trace(NamedTuple):
    """Value: one training run, as removals read it; l segments of c points each.

    Attributes:
        points: Checkpoints, with leading axes l and c.
        shares: Of a point in its segment, by rates; they sum to one.
        rates: Sum of the rates of each segment's steps.
        curvatures: EK-FAC of the mean curvature of each segment, leading axis l.
        slopes: Mean gradient ∇R_all of each segment, without l2; leading axis l.
        last: EK-FAC at the trained model.
        slope: Mean gradient ∇R_all there, without l2.
        unseen: Losses of what has not been learned.
    """

    points: Variables
    shares: Float[Array, "l c"]
    rates: Float[Array, " l"]
    curvatures: Kronecker
    slopes: Params
    last: Kronecker
    slope: Params
    unseen: Unseen


def fit_traced(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    *,
    points: int | None = None,
    **options: Any,
) -> tuple[Variables, Trace]:
    """The run of ``fit`` with this key, and its trace.

    Args:
        key: As in ``fit``.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights.
        points: Checkpoints, as in :func:`unlearn_jax.train.trajectory.fit_trajectory`;
            None takes six, or as many as there are epochs.
        options: Of :func:`trace_of`.

    Cost: ``fit`` and :func:`trace_of`.
    """
    points = checkpoints_of(learner) if points is None else points
    trained, pieces = fit_trajectory(key, learner, data, points=points)
    own = jax.random.fold_in(key, 2)
    return trained, trace_of(own, learner, trained, pieces, data, **options)


def trace_of(
    key: PRNGKey,
    learner: Learner,
    trained: Variables,
    pieces: Pieces,
    data: Batch,
    *,
    held_out: Batch | None = None,
    segments: int | None = None,
    labels: str = "sampled",
    examples: int | None = 1000,
    batch_size: int = 256,
) -> Trace:
    """The trace of a run whose checkpoints were kept; made at any time after it.

    Args:
        key: Draws labels, the examples of the curvatures, and what is left out.
        learner: Model, loss, l2 and recipe of the run.
        trained: What it gave.
        pieces: From ``fit_trajectory``: checkpoints, rates, steps.
        data: What it was trained on.
        held_out: Examples that it was not trained on, and that no judge of a removal
            may read again. None trains one more model without a tenth of ``data`` and
            takes that tenth: no example is asked for beyond the training set.
        segments: How many; the points are divided among them. None takes three, or one
            for all points where these do not divide by three.
        labels: Of the EK-FAC matrices: "exact", "sampled" or "true".
        examples: How many, drawn at random, make up these matrices; None takes all.
        batch_size: Examples whose activations are held at once.

    Returns:
        Trace; a pytree of arrays that ``train.checkpoint`` keeps and reads back into
        :func:`trace_like`.

    Raises:
        ValueError: the points do not divide among the segments, or a recipe of "adam".

    Cost: for c points ``ekfac`` on ``examples`` at each and at the end, with the
        eigenproblems of segments + 1 points; c + 1 gradients for each example of
        ``data``.
        Without ``held_out`` a training run on nine tenths more.
    """
    if learner.recipe.optimizer != "sgd":
        raise ValueError(
            f"a trace got a recipe of {learner.recipe.optimizer!r}, expected 'sgd': "
            "rates times curvature have no meaning otherwise"
        )
    data = jax.tree.map(jnp.asarray, data)
    few_key, label_key, out_key = jax.random.split(key, 3)
    drawn = label_key if labels == "sampled" else None
    count = tree.leading_axis(data)
    few = data
    if examples is not None and examples < count:
        few = sample(few_key, data, examples)
    if segments is None:
        segments = 1 if len(pieces[1]) % 3 else 3
    shares, rates, points = divide(pieces, segments)

    def objective_at(at: Variables) -> Objective:
        return bind(learner.model, at.stats, learner.loss)

    def of_segment(given: Any) -> tuple[Kronecker, Params]:
        points, shares = given
        found = mean_ekfac(drawn, objective_at, points, shares, few, labels=labels)
        given = learner, points, shares, data
        return found, mean_slope(*given, batch_size=batch_size)

    curvatures, slopes = jax.lax.map(of_segment, (points, shares))
    objective = objective_at(trained)
    last = ekfac(drawn, objective, trained.params, few, labels=labels)
    if held_out is None:
        other, out = left_out(out_key, learner, data)
        held, known = mean_loss(learner, other, out), mean_loss(learner, trained, out)
    else:
        held = mean_loss(learner, trained, held_out)
        known = mean_loss(learner, trained, data)
    unseen = Unseen(held, known, foreign_losses(objective, trained.params, data))
    end = jax.tree.map(lambda leaf: leaf[None], trained), jnp.ones(1)
    slope = mean_slope(learner, *end, data, batch_size=batch_size)
    return Trace(points, shares, rates, curvatures, slopes, last, slope, unseen)


def trace_like(
    learner: Learner, data: Batch, **options: Any
) -> tuple[Variables, Trace]:
    """Shapes and dtypes of what :func:`fit_traced` gives, to read one from disk."""

    def run(key: PRNGKey, data: Batch) -> tuple[Variables, Trace]:
        return fit_traced(key, learner, data, **options)

    return jax.eval_shape(run, jax.random.key(0), data)


def checkpoints_of(learner: Learner) -> int:
    """How many checkpoints a trace keeps by default."""
    return min(6, learner.recipe.epochs)


def mean_slope(
    learner: Learner,
    points: Variables,
    shares: Array,
    data: Batch,
    *,
    batch_size: int = 256,
) -> Params:
    """Σ over points of share · ∇R, without l2; one gradient per example and point."""

    def part(batch: Batch, at: Variables) -> Params:
        objective = bind(learner.model, at.stats, learner.loss)
        return jax.grad(objective.total)(at.params, present(batch))

    def one(total: Params, point: Any) -> tuple[Params, None]:
        at, share = point
        found = accumulate(part, data, at, batch_size=batch_size)
        return tree.axpy(share / _mass(data), found, total), None

    zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), points.params)
    return jax.lax.scan(one, zero, (points, shares))[0]


def unrolled_response(
    learner: Learner, trace: Trace, forget: Batch, kept: Any, *, batch_size: int = 256
) -> tuple[Params, Params]:
    """What the trained parameters would be without the forget set, minus what they are.

    Args:
        learner: Model, loss, l2 and recipe of the run.
        trace: Of it.
        forget: The forget set.
        kept: W_r, the weight of what stays.
        batch_size: Examples whose activations are held at once.

    Returns:
        (δ, slopes): the response, and the mean gradients of what stays for the next
        request's trace.

    Cost: a gradient of each forgotten example at each point, two products with the
        factors for each segment.
    Source: Bae et al. 2024, arXiv 2405.12186, eq. 8, for a set. Differs: the mean
        gradient is taken off.
    """
    decay = learner.l2 + learner.recipe.weight_decay
    gone = _mass_of(forget)
    share = gone / jnp.where(kept + gone > 0, kept + gone, 1)
    whole_to_kept = jnp.where(kept > 0, (kept + gone) / jnp.where(kept > 0, kept, 1), 0)

    def forth(change: Params, given: Any) -> tuple[Params, Params]:
        points, shares, rate, curvature, mean = given
        own = mean_slope(learner, points, shares, forget, batch_size=batch_size)
        removed = tree.scale(share, tree.subtract(own, mean))
        stay, pull = propagators(curvature, rate, change, decay=decay)
        left = tree.axpy(-whole_to_kept, removed, mean)
        return tree.add(stay(change), pull(removed)), left

    zero = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), trace.slopes)
    given = trace.points, trace.shares, trace.rates, trace.curvatures, trace.slopes
    return jax.lax.scan(forth, zero, given)


def left_out_loss(key: PRNGKey, learner: Learner, data: Batch) -> Scalar:
    """Mean loss on a random tenth of the examples, of a model trained on the others."""
    return mean_loss(learner, *left_out(key, learner, data))


def left_out(key: PRNGKey, learner: Learner, data: Batch) -> tuple[Variables, Batch]:
    """A model trained without a random tenth of the examples, and that tenth."""
    out_key, fit_key = jax.random.split(key)
    there = data.weights > 0
    drawn = jax.random.uniform(out_key, there.shape, jnp.float32)
    ranks = jnp.argsort(jnp.argsort(jnp.where(there, drawn, 2.0)))
    out = there & (ranks < jnp.ceil(LEFT_OUT * jnp.sum(there)))
    rest = data._replace(weights=jnp.where(out, 0, data.weights))
    model = fit(fit_key, learner, rest)
    return model, data._replace(weights=jnp.where(out, data.weights, 0))


def mean_loss(learner: Learner, variables: Variables, data: Batch) -> Scalar:
    """Σ wₙ ℓₙ / Σ wₙ in evaluation mode, without l2."""
    found = losses_of(learner, variables, data)
    return jnp.sum(data.weights * found) / _mass(data)


def losses_of(learner: Learner, variables: Variables, data: Batch) -> Array:
    """(n,) losses in evaluation mode, without l2; of weight zero, another's."""
    data = present(data)

    def losses(part: Any, at: Variables) -> Array:
        inputs, targets = part
        return learner.loss(learner.model.apply(at, inputs), targets)

    return collect(losses, (data.inputs, data.targets), variables)


def _mass_of(batch: Batch) -> Array:
    return jnp.sum(batch.weights)


def _mass(batch: Batch) -> Array:
    mass = _mass_of(batch)
    return jnp.where(mass > 0, mass, 1)
