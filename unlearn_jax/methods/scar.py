"""SCAR: push features to the nearest wrong class, hold the rest on foreign inputs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect
from unlearn_jax.data.batch import sample
from unlearn_jax.data.foreign import foreign_images, foreign_names, marginals
from unlearn_jax.loop import tracing, while_loop
from unlearn_jax.methods.centres import (
    CLASS_GOAL,
    class_weights,
    features_of,
    gone_classes,
    unseen_accuracy,
)
from unlearn_jax.methods.class_shapes import (
    Sent,
    Shapes,
    class_shapes,
    send,
    shape_distances,
    transformed,
)
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.matching import outputs_of
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.descent import TrainState, begin, descend, shuffled
from unlearn_jax.train.fit import weighted_mean
from unlearn_jax.train.loss import kl_divergence
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

ROUNDS = {"published": 2, "self": 1}
"""Variant -> how often correlations are shrunk, as released."""
MARGINALS = "marginals"
FIRST_STOP = 2
"""Passes over the forget set before a random one may end."""
LEAST = 0.8
"""Accuracy on a class's part of a random forget set below which it is left alone."""


class Known(NamedTuple):
    """Value: what is kept of training.

    Attributes:
        shapes: Of all classes in the original's features.
        foreign: (m, ...) inputs of another distribution.
        goal: Accuracy at which examples of retained classes count as forgotten.
    """

    shapes: Shapes
    foreign: Array
    goal: Array


@entrance()
def scar(
    learner: Learner,
    *,
    variant: str = "published",
    foreign: str = "photos",
    foreign_count: int = 2000,
    forget_weight: float = 1.0,
    foreign_weight: float = 5.0,
    power: float = 0.5,
    shrinkage: float = 3.0,
    ratio: int = 5,
    goal: float | None = None,
    epochs: int = 30,
    learning_rate: float = 5e-4,
    batch_size: int = 1024,
) -> Method:
    """Move features to a wrong class by its own shape; imitate the original elsewhere.

    Features to the power ``power`` have a mean and a shrunk correlation for each class.
    Each forget example is bound to the nearest class that is not its own, by
    d = (z − μ)ᵀ C⁺ (z − μ) of unit vectors. Adam descends on forget_weight · mean d +
    foreign_weight · KL(original ‖ model) on inputs that belong to no class; where a
    whole class is forgotten, those that the original gives to it are left out, and its
    logit is the least of all.

    Args:
        learner: Only its model, and the recipe for ``goal``.
        variant: "published", or "self": the forget set's inputs are not read; foreign
            ones that the original gives to a class that nothing retained is of stand
            for it.
        foreign: Where foreign inputs come from: a data set of images
            (``data.foreign``), "photos", or "marginals", every number drawn apart from
            the others from the training set, for inputs that are no images.
        foreign_count: How many.
        forget_weight: Of the distance (no unit).
        foreign_weight: Of the divergence (no unit).
        power: Of the features; 1 for features that may be negative.
        shrinkage: Of the correlations, twice; once for "self", as released (no unit).
        ratio: Batches of foreign inputs for each one of the forget set, at most.
        goal: Stop at the first step with a smaller share of forget labels predicted (0
            to 1). None: 0.01 where a class is forgotten as a whole; else what a model
            without a tenth of the training set reaches there, from the third pass on.
        epochs: Passes over the forget set, at most.
        learning_rate: Of Adam.
        batch_size: Examples of each kind in a step.

    No retained example is read at the request. Batch statistics move, by foreign
    inputs. On random sets each class counts by its accuracy, and not below 0.8.

    Returns:
        Method; its state is :class:`Known`.

    Raises:
        ValueError: an unknown ``variant`` or ``foreign``; from ``prepare``, inputs
            that the foreign ones cannot be like, or negative features with a power that
            is not 1; from ``forget``, "self" where no whole class is forgotten, or no
            foreign input is taken for it (these not while being traced).

    Cost: prepare, a forward pass over the training set, an eigenproblem for each class,
        and a training run unless ``goal`` is given; forget, up to epochs × (forget +
        ratio × as many foreign) gradients, and a forward pass over the forget set for
        every step, which the paper does not count. Loops run on the device.
    Source: Bonato et al. 2024, SCAR and SCAR-self. Differs: shapes are those of the
        training set, at training time; classes go by their label; random sets stop at
        no accuracy of the test set; "self" stops by the foreign inputs, where released
        code looks at the forget set after every step.
    """
    if variant not in ROUNDS:
        raise ValueError(
            f"variant {variant!r} is unknown; choose from {', '.join(ROUNDS)}"
        )
    known = (MARGINALS, *foreign_names())
    if foreign not in known:
        raise ValueError(
            f"scar: foreign {foreign!r} is unknown; choose from {', '.join(known)}"
        )
    model = learner.model
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
    )

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Known:
        goal_key, draw_key = jax.random.split(key)
        features = features_of(learner, original, train)
        if power != 1 and not tracing(features) and bool(jnp.any(features < 0)):
            raise ValueError(
                f"scar takes features to the power {power}, and the least is "
                f"{float(jnp.min(features)):.3g}: set power=1, or take a model whose "
                "features are not negative"
            )
        classes = outputs_of(learner, original, train.inputs).shape[-1]
        shapes = class_shapes(
            transformed(features, power),
            class_weights(train, classes),
            shrinkage=shrinkage,
            rounds=ROUNDS[variant],
        )
        aim = goal
        if aim is None:
            aim = unseen_accuracy(goal_key, learner, train)
        away = _foreign(draw_key, train, foreign, foreign_count)
        return Known(shapes, away, jnp.asarray(aim, jnp.float32))

    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        inputs, target = examples
        outputs, moved = model.apply_train(
            key, Variables(params, riding["stats"]), inputs
        )
        held = weighted_mean(kl_divergence(outputs, target), weights)
        lost: Sent = riding["lost"]
        features = model.features(Variables(params, moved.stats), lost.inputs)
        far = shape_distances(transformed(features, power), riding["shapes"])
        own = jnp.take_along_axis(far, lost.chosen[:, None], axis=1)[:, 0]
        apart = jnp.sum(lost.pull * own) / jnp.maximum(jnp.sum(lost.weights), 1e-30)
        value = foreign_weight * held + (forget_weight * apart).astype(held.dtype)
        return value, {**riding, "stats": moved.stats}

    def forget(
        key: PRNGKey, known: Known, variables: Variables, request: Request
    ) -> tuple[Variables, Known]:
        logits = outputs_of(learner, variables, known.foreign)
        gone = gone_classes(request, logits.shape[-1])
        whole = jnp.any(gone)
        guessed = jnp.argmax(logits, axis=-1)
        lost = request.forget
        if variant == "self":
            taken = gone[guessed].astype(lost.weights.dtype)
            lost = Batch(known.foreign, guessed.astype(jnp.int32), taken)
            _check_taken(lost, whole)
        sent = send(learner, variables, lost, known.shapes, ~gone, power=power)
        target = jnp.where(gone[None] & whole, jnp.min(logits), logits)
        free = (~gone[guessed]).astype(lost.weights.dtype)
        elsewhere = Batch(known.foreign, jax.nn.log_softmax(target, axis=-1), free)

        size = min(batch_size, sent.weights.shape[0])
        aside = min(batch_size, free.shape[0])
        rounds = min(ratio, -(-free.shape[0] // aside))
        batches = jnp.maximum(-(-jnp.sum(sent.weights > 0) // size), 1)
        aim = jnp.where(whole & (goal is None), CLASS_GOAL, known.goal)

        def by_class(state: TrainState) -> tuple[Array, Array]:
            """Share of labels that are predicted, in all and by class."""
            at = state.variables

            def guess(inputs: Any, at: Variables) -> Array:
                return jnp.argmax(model.apply(at, inputs), axis=-1)

            now = at._replace(stats=at.stats["stats"])
            right = collect(guess, sent.inputs, now) == sent.labels
            share = right * sent.weights
            own = class_weights(Batch(None, sent.labels, sent.weights), len(gone))
            mass = jnp.maximum(jnp.sum(own, axis=0), 1e-30)
            shares = jnp.sum(own * right[:, None], axis=0) / mass
            total = jnp.maximum(jnp.sum(sent.weights), 1e-30)
            return (jnp.sum(share) / total).astype(jnp.float32), shares

        def step(carried: Any) -> Any:
            number, state, _, shares = carried
            epoch, place = number // (batches * rounds), number // rounds % batches
            order, count = shuffled(jax.random.fold_in(key, epoch), sent.weights)
            draw_key, step_key = jax.random.split(
                jax.random.fold_in(jax.random.fold_in(key, epoch), number)
            )
            spot = place * size + jnp.arange(size)
            batch: Sent = jax.tree.map(
                lambda leaf: leaf[order[spot % jnp.maximum(count, 1)]], sent
            )
            there = jnp.where(spot < count, batch.weights, 0)
            scale = jnp.where(shares < LEAST, 0, shares)
            scale = jnp.where(whole, 1, scale)[batch.labels]
            batch = batch._replace(
                weights=there, pull=there * scale.astype(there.dtype)
            )
            at = state.variables
            stats = {**at.stats, "lost": batch}
            part = sample(draw_key, elsewhere, aside)
            state = descend(
                step_key,
                state._replace(variables=at._replace(stats=stats)),
                (part.inputs, part.targets),
                part.weights,
                step_loss,
                recipe,
                total_steps=1,
            )
            return number + 1, state, *by_class(state)

        def going(carried: Any) -> Array:
            number, _, found, _ = carried
            epoch = number // (batches * rounds)
            early = ~whole & (epoch < FIRST_STOP)
            return (epoch < epochs) & (early | (found >= aim))

        nobody: Sent = jax.tree.map(lambda leaf: leaf[:size], sent)
        stats = {"stats": variables.stats, "lost": nobody, "shapes": known.shapes}
        first = begin(variables._replace(stats=stats), recipe)
        unknown = jnp.full((), jnp.inf, jnp.float32)
        start = (jnp.zeros((), jnp.int32), first, unknown, by_class(first)[1])
        some = jnp.any(sent.weights > 0)
        moved = while_loop(lambda c: some & going(c), step, start, sent, elsewhere)
        at = moved[1].variables
        return at._replace(stats=at.stats["stats"]), known

    return Method(prepare, forget)


def _check_taken(lost: Batch, whole: Array) -> None:
    """Refuse where foreign inputs cannot stand for what is forgotten."""
    if tracing(lost, whole):
        return
    if not bool(whole):
        raise ValueError(
            "scar variant 'self' forgets whole classes, and every class of this forget "
            "set is retained too: take variant 'published'"
        )
    if not bool(jnp.any(lost.weights > 0)):
        raise ValueError(
            f"none of {len(lost.weights)} foreign inputs is taken for the class to "
            "forget: raise foreign_count, or choose other foreign inputs"
        )


def _foreign(key: PRNGKey, train: Batch, name: str, count: int) -> Array:
    """(count, ...) inputs that are of no class."""
    inputs = train.inputs
    if len(jax.tree.leaves(inputs)) != 1:
        raise ValueError(
            "scar needs inputs of one array, for which it has foreign ones; got "
            f"{len(jax.tree.leaves(inputs))}"
        )
    if name != MARGINALS:
        like = jnp.asarray(inputs)
        return jnp.asarray(foreign_images(name, like.shape[1:], count), like.dtype)
    return marginals(key, train, count)
