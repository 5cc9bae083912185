"""One training run: a loop of passes, compiled as one program or watched by epochs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.loop import Loop, choose_loop, tracing
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.augment import flip_crop
from unlearn_jax.train.descent import (
    StepLoss,
    TrainState,
    begin,
    descend,
    optimise,
    steps_per_pass,
)
from unlearn_jax.train.entrance import check_learnable
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


class FitState(NamedTuple):
    """Value: a training run between two epochs, all that is needed to go on."""

    train: TrainState
    epochs_done: Any


@automatic
def fit(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    *,
    start: Variables | None = None,
    pace: Any = None,
) -> Variables:
    """Train on the examples of ``data`` whose weight is positive.

    Pure when the loop is on the device (see ``Recipe.loop``): wrap it in ``jit``, or in
    ``vmap`` over keys and weights to train an ensemble as one program.

    Args:
        key: Draws the initial parameters, the order of the examples, the augmentation.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights; a subset is a choice of weights.
        start: Variables to start from instead of a fresh initialisation.
        pace: Multiplies every update, see :func:`unlearn_jax.train.descent.descend`.

    Returns:
        Variables after ``recipe.epochs`` passes.

    Raises:
        ValueError: data that cannot be learned from (see
            :func:`unlearn_jax.train.entrance.check_learnable`); not inside ``jit``.

    Cost: epochs × examples gradients. Memory: data, parameters and one batch.
    """
    check_learnable(learner, data, name="training set", variables=start)
    loop = choose_fit_loop(learner, data, key, start)
    state = optimise(
        order_stream(key),
        start_fit(key, learner, start).train,
        (data.inputs, data.targets),
        data.weights,
        training_loss(learner),
        learner.recipe,
        pace=pace,
        loop=loop,
    )
    return state.variables


def fit_watched(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    *,
    watch: Callable[[FitState], None],
    state: FitState | None = None,
) -> Variables:
    """:func:`fit` with a word after every epoch, resumable from any of them.

    Args:
        key: As in ``fit``; a resumed run needs the key that it was started with.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights.
        watch: Called with the state after every epoch: show progress, save it.
        state: What ``watch`` was last given, to go on from there.

    Returns:
        What ``fit`` returns, up to rounding: each epoch is a program of its own.

    Raises:
        ValueError: as ``fit``.
    """
    check_learnable(learner, data, name="training set")
    loop = choose_fit_loop(learner, data)
    state = start_fit(key, learner) if state is None else state
    for _ in range(int(state.epochs_done), learner.recipe.epochs):
        if loop == "host":
            state = fit_epoch(key, learner, state, data, loop=loop)
        else:
            state = _compiled_epoch(learner)(key, state, data)
        watch(state)
    return state.train.variables


def start_fit(
    key: PRNGKey, learner: Learner, start: Variables | None = None
) -> FitState:
    """The state of a run before its first epoch."""
    if start is None:
        start = learner.model.init(jax.random.fold_in(key, 0))
    return FitState(begin(start, learner.recipe), jnp.zeros((), jnp.int32))


def fit_epoch(
    key: PRNGKey,
    learner: Learner,
    state: FitState,
    data: Batch,
    *,
    loop: Loop = "device",
) -> FitState:
    """One more epoch of the run that ``key`` started."""
    recipe = learner.recipe
    train = descend(
        jax.random.fold_in(order_stream(key), state.epochs_done),
        state.train,
        (data.inputs, data.targets),
        data.weights,
        training_loss(learner),
        recipe,
        total_steps=recipe.epochs * steps_per_pass(data.weights, recipe.batch_size),
        loop=loop,
    )
    return FitState(train, state.epochs_done + 1)


def choose_fit_loop(learner: Learner, data: Batch, *others: Any) -> Loop:
    """Where the steps run: the recipe's choice, "auto" resolved for this model.

    Under "auto" the answer is "device" when ``data`` or any of ``others`` (keys,
    variables) is being traced, since nothing else can run inside a transformation.
    """
    if learner.recipe.loop != "auto":
        return learner.recipe.loop
    if tracing(data, others):
        return "device"
    inputs = jax.ShapeDtypeStruct((2, *data.inputs.shape[1:]), data.inputs.dtype)
    variables = jax.eval_shape(learner.model.init, jax.random.key(0))
    return choose_loop("auto", learner.model.apply, variables, inputs)


@functools.lru_cache(maxsize=64)
def training_loss(learner: Learner) -> StepLoss:
    """The loss of one training step: weighted mean over the batch, plus l2.

    In training mode, so batch statistics move. The batch-norm of a step sees examples
    of positive weight only (in the last step of a pass, some of them twice).
    """
    model, augment = learner.model, learner.recipe.augment

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        inputs, targets = examples
        augment_key, model_key = jax.random.split(key)
        if augment == "flip_crop":
            inputs = flip_crop(augment_key, inputs)
        outputs, variables = model.apply_train(
            model_key, Variables(params, stats), inputs
        )
        value = weighted_mean(learner.loss(outputs, targets), weights)
        if learner.l2:
            value = value + 0.5 * learner.l2 * tree.dot(params, params)
        return value, variables.stats

    return step_loss


def weighted_mean(values: Any, weights: Any) -> Any:
    """Σ wᵢ vᵢ / Σ wᵢ; zero when there is no weight."""
    mass = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(mass > 0, mass, 1)


def order_stream(key: PRNGKey) -> PRNGKey:
    """The key that draws the order of the examples, of the key of a run."""
    return jax.random.fold_in(key, 1)


@functools.lru_cache(maxsize=32)
def _compiled_epoch(learner: Learner) -> Callable[..., FitState]:
    return jax.jit(lambda key, state, data: fit_epoch(key, learner, state, data))
