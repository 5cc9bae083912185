"""DUCK: send what is to be forgotten to the nearest centroid of another class."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.data.batch import sample
from unlearn_jax.loop import fori_loop, tracing, while_loop
from unlearn_jax.methods.centres import (
    CLASS_GOAL,
    class_means,
    class_weights,
    features_of,
    gone_classes,
    nearest_other,
    unit,
    unseen_accuracy,
)
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.train.descent import (
    StepLoss,
    TrainState,
    begin,
    descend,
    shuffled,
    steps_per_pass,
)
from unlearn_jax.train.fit import training_loss, weighted_mean
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables
from unlearn_kernels.precision import EXACT


@entrance(zero=("repair_epochs",))
def duck(
    learner: Learner,
    *,
    forget_weight: float = 1.0,
    retain_weight: float = 1.4,
    temperature: float = 2.0,
    ratio: int = 40,
    goal: float | None = None,
    epochs: int = 200,
    learning_rate: float = 4e-4,
    batch_size: int = 256,
    repair_epochs: int = 2,
    repair_rate: float = 1e-4,
) -> Method:
    """Pull features to wrong centroids until the forget set is known no better.

    Centroids are the mean features of the retained classes under the original; each
    forget example is bound to the one of least cosine distance that is not its own. For
    each batch of the forget set ``ratio`` batches of the retain set are drawn, and Adam
    descends on forget_weight · (1 − cosine to the centroid) + retain_weight ·
    loss(outputs / temperature).

    Args:
        learner: Its loss takes class indices; of its recipe only augmentation is used,
            and that in the repair.
        forget_weight: Of the mean distance to the centroids (no unit).
        retain_weight: Of the mean loss on the retained examples (no unit).
        temperature: Divides the outputs on these (no unit).
        ratio: Retained batches for each one of the forget set; 5 for a hundred classes.
        goal: Stop after the first pass with a smaller share of forget labels predicted
            (0 to 1). None: 0.01 where a class is forgotten as a whole; else what a
            model without a tenth of the training set reaches there.
        epochs: Passes over the forget set, at most.
        learning_rate: Of Adam.
        batch_size: Examples of each kind in a step.
        repair_epochs: Passes over the retain set afterwards, with a tenth of
            ``forget_weight`` and a rate that falls to zero. Two in the released code, a
            phase that the paper does not tell of; 0 is the paper.
        repair_rate: First learning rate of these.

    Batch statistics move by the retained batches; features of the forget set are taken
    in evaluation mode.

    Returns:
        Method; its state is the goal for examples whose class is retained.

    Raises:
        ValueError: a temperature of zero; from ``forget``, when fewer than two classes
            are retained where one of them has examples to forget.

    Cost: prepare, a training run unless ``goal`` is given; forget, a forward pass over
        the retain set, up to epochs × forget examples × (1 + ratio) gradients, and
        repair_epochs × 2 × retain examples. Loops run on the device.
    Source: Cotogni et al. 2023, arXiv 2312.02052, with its code's second phase.
        Differs: centroids of all retained examples, not of 50 batches; targets are
        fixed at the original, not when a batch is first seen; on random sets the goal
        is no accuracy of the test set; the repair sees a batch to forget with each
        retained one, as released for classes; labels are not smoothed.
    """
    if temperature == 0:
        raise ValueError("duck: temperature must be positive, got 0: raise it")
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
    )
    mending = replace(
        recipe,
        epochs=max(repair_epochs, 1),
        learning_rate=repair_rate,
        schedule="cosine",
        augment=learner.recipe.augment,
    )

    def cooled(outputs: Any, targets: Any) -> Any:
        return learner.loss(outputs / temperature, targets)

    bare = learner._replace(l2=0.0)
    pull = _pulling(
        bare._replace(loss=cooled, recipe=recipe), forget_weight, retain_weight
    )
    mend = _pulling(bare._replace(recipe=mending), 0.1 * forget_weight, 1.0)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Array:
        del original
        if goal is not None:
            return jnp.asarray(goal, jnp.float32)
        return unseen_accuracy(key, learner, train).astype(jnp.float32)

    def forget(
        key: PRNGKey, known: Array, variables: Variables, request: Request
    ) -> tuple[Variables, Array]:
        bound, whole = bind_to_centroids(learner, variables, request)
        kept, lost = request.retain, bound.weights
        aim = jnp.where(whole & (goal is None), CLASS_GOAL, known)
        order_key, mend_key = jax.random.split(key)
        size = min(batch_size, lost.shape[0])
        limit = min(ratio * batch_size, kept.weights.shape[0])

        def one_pass(carried: Any) -> Any:
            index, state, _ = carried
            own = jax.random.fold_in(order_key, index)
            order, count = shuffled(own, lost)

            def one_batch(number: Any, state: TrainState) -> TrainState:
                draw_key, step_key = jax.random.split(jax.random.fold_in(own, number))
                part = sample(draw_key, kept, limit)
                return descend(
                    step_key,
                    _riding(state, bound, order, count, number * size),
                    (part.inputs, part.targets),
                    part.weights,
                    pull,
                    recipe,
                    total_steps=1,
                )

            batches = (count + size - 1) // size
            state = fori_loop(0, batches, one_batch, state, kept, bound)
            at = state.variables
            plain = at._replace(stats=at.stats["stats"])
            found = label_agreement(learner, plain, request.forget)
            return index + 1, state, found.astype(jnp.float32)

        def going(carried: Any) -> Array:
            index, _, found = carried
            return (index < epochs) & (found >= aim)

        def repair(index: Any, state: TrainState) -> TrainState:
            own, step_key = jax.random.split(jax.random.fold_in(mend_key, index))
            return descend(
                step_key,
                _riding(state, bound, *shuffled(own, lost), 0),
                (kept.inputs, kept.targets),
                kept.weights,
                mend,
                mending,
                total_steps=repair_epochs * steps_per_pass(kept.weights, batch_size),
            )

        nobody: Bound = jax.tree.map(lambda leaf: leaf[:size], bound)
        nobody = nobody._replace(weights=jnp.zeros_like(lost[:size]))
        stats = {"stats": variables.stats, "lost": nobody}
        first = begin(variables._replace(stats=stats), recipe)
        known_yet = jnp.where(jnp.any(lost > 0), jnp.inf, -jnp.inf).astype(jnp.float32)
        start = (jnp.zeros((), jnp.int32), first, known_yet)
        moved = while_loop(going, one_pass, start, kept, bound)[1].variables
        if repair_epochs:
            state = begin(moved, mending)
            state = fori_loop(0, repair_epochs, repair, state, kept, bound)
            moved = state.variables
        return moved._replace(stats=moved.stats["stats"]), known

    return Method(prepare, forget)


class Bound(NamedTuple):
    """Value: examples to forget, and where each is sent.

    Attributes:
        inputs: Of the examples.
        centres: (n, f) the centroid of each.
        weights: (n,); zero where no other class is retained.
    """

    inputs: Any
    centres: Array
    weights: Array


def bind_to_centroids(
    learner: Learner, variables: Variables, request: Request
) -> tuple[Bound, Array]:
    """Each forget example with its centroid, and whether a whole class is forgotten.

    Raises:
        ValueError: an example has no other class to go to; not while being traced.
    """
    lost, kept = (jax.tree.map(jnp.asarray, part) for part in request)
    outputs = jax.eval_shape(learner.model.apply, variables, lost.inputs)
    classes = outputs.shape[-1]
    means, there = class_means(
        features_of(learner, variables, kept), class_weights(kept, classes)
    )
    features = features_of(learner, variables, lost)
    cosines = jnp.matmul(unit(features), unit(means).T, precision=EXACT)
    chosen = nearest_other(-cosines, lost.targets, there)
    other = there[chosen] & (chosen != lost.targets)
    stranded = ~other & (lost.weights > 0)
    if not tracing(stranded) and bool(jnp.any(stranded)):
        row = int(jnp.argmax(stranded))
        raise ValueError(
            f"duck found no retained class but {int(lost.targets[row])} for example "
            f"{row} to forget, expected a wrong one to send it to: retain another class"
        )
    weights = jnp.where(other, lost.weights, 0)
    whole = jnp.any(gone_classes(request, classes))
    return Bound(lost.inputs, means[chosen], weights), whole


def _riding(
    state: TrainState, bound: Bound, order: Array, count: Array, start: Any
) -> TrainState:
    """The state with the next batch to forget, from ``start`` on, in its stats."""
    at = state.variables
    size = at.stats["lost"].weights.shape[0]
    place = start + jnp.arange(size)
    rows = order[place % jnp.maximum(count, 1)]
    batch: Bound = jax.tree.map(lambda leaf: leaf[rows], bound)
    batch = batch._replace(weights=jnp.where(place < count, batch.weights, 0))
    stats = {"stats": at.stats["stats"], "lost": batch}
    return state._replace(variables=at._replace(stats=stats))


def _pulling(learner: Learner, forget_weight: float, retain_weight: float) -> StepLoss:
    """Loss of a retained batch, and distance of the riding one to its centroids."""
    keep = training_loss(learner)

    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        kept, stats = keep(key, params, riding["stats"], examples, weights)
        lost = riding["lost"]
        features = learner.model.features(Variables(params, stats), lost.inputs)
        cosines = jnp.sum(unit(features) * unit(lost.centres), axis=-1)
        apart = weighted_mean(1 - cosines, lost.weights)
        value = retain_weight * kept + (forget_weight * apart).astype(kept.dtype)
        return value, {**riding, "stats": stats}

    return step_loss
