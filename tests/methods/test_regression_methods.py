"""Blindspot and Gaussian-Amnesiac: one step of each by hand, and what they lead to."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods.blindspot import attention, attentive_blindspot
from unlearn_jax.models.model import Model
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import squared_error
from unlearn_jax.types import Variables

KEY, RATE, GONE = jax.random.key(3), 1e-2, np.arange(0, 12, 2)
DATA = tiny.numeric(tiny.examples())
LEARNER = tiny.learner("mlp", loss=squared_error, epochs=5)
ORIGINAL = LEARNER.model.init(jax.random.key(9))
REQUEST = make_request(DATA, GONE)
WHOLE = {"epochs": 1, "learning_rate": RATE, "batch_size": 1000}


def adam_step(loss, params):
    """What the first step of Adam makes of these parameters."""
    update = optax.adam(RATE)
    updates, _ = update.update(jax.grad(loss)(params), update.init(params), params)
    return optax.apply_updates(params, updates)


def forgotten(method, request=REQUEST, original=ORIGINAL, key=KEY):
    return tiny.quick_jit(method.forget)(key, (), original, request)[0]


def test_amnesiac_takes_the_step_towards_numbers_like_all_targets():
    method = METHODS["gaussian_amnesiac"].factory(LEARNER, **WHOLE)
    found = forgotten(method)
    noise = jax.random.normal(jax.random.split(KEY)[0], (8, 3), jnp.float64)
    drawn = DATA.targets.mean(0) + DATA.targets.std(0) * np.asarray(noise)
    targets = np.array(DATA.targets)
    targets[GONE] = drawn[: len(GONE)]

    def loss(params):
        outputs = LEARNER.model.apply(Variables(params, {}), DATA.inputs)
        return jnp.mean(squared_error(outputs, jnp.asarray(targets)))

    expected = tiny.quick_jit(lambda p: adam_step(loss, p))(ORIGINAL.params)
    assert_trees_close(found.params, expected, rtol=1e-7, atol=1e-9)


def blind_of(method_options, learner=LEARNER):
    recipe = replace(
        learner.recipe,
        epochs=method_options["blind_epochs"],
        learning_rate=method_options["blind_rate"],
        batch_size=method_options["batch_size"],
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
    )
    error = lambda outputs, targets: jnp.mean(jnp.abs(outputs - targets), -1)  # noqa: E731
    teacher = learner._replace(recipe=recipe, loss=error)
    return fit(jax.random.split(KEY)[0], teacher, REQUEST.retain)


BLIND = {**WHOLE, "blind_epochs": 3, "blind_rate": 0.05}


def test_blindspot_takes_the_published_step_of_a_mixed_batch():
    found = forgotten(METHODS["blindspot"].factory(LEARNER, **BLIND))
    apply, blind = LEARNER.model.apply, blind_of(BLIND)
    stays = np.setdiff1d(np.arange(tiny.COUNT), GONE)
    share = len(GONE) / tiny.COUNT
    told = apply(blind, DATA.inputs[GONE])

    def loss(params):
        model = Variables(params, {})
        kept = jnp.abs(apply(model, DATA.inputs[stays]) - DATA.targets[stays])
        lost = jnp.abs(apply(model, DATA.inputs[GONE]) - told)
        return (1 - share) * jnp.mean(kept) + share * jnp.mean(lost)

    expected = tiny.quick_jit(lambda p: adam_step(loss, p))(ORIGINAL.params)
    assert_trees_close(found.params, expected, rtol=1e-6, atol=1e-8)


def test_blindspot_forgets_what_finetuning_keeps():
    # Forget a band of one target: its examples alone tell of inputs above 1.
    random = np.random.default_rng(0)
    inputs = np.sort(random.uniform(-1, 2, (80, 1)), axis=0)
    targets = np.where(inputs > 1, 3.0, inputs)
    data = from_arrays(inputs, targets)
    request = make_request(data, np.flatnonzero(inputs[:, 0] > 1))
    net = tiny.mlp((1,), 1, widths=(16,), activation=jnp.tanh, dtype=jnp.float64)
    learner = LEARNER._replace(model=net)
    original = tiny.quick_jit(
        lambda k: fit(
            k,
            tiny.learner("mlp", loss=squared_error, epochs=60)._replace(model=net),
            data,
        )
    )(KEY)

    def error(variables):
        outputs = net.apply(variables, request.forget.inputs)
        gap = np.abs(np.asarray(outputs - request.forget.targets))[:, 0]
        return float(np.average(gap, weights=request.forget.weights))

    options = {"epochs": 30, "learning_rate": 0.02, "batch_size": 16}
    fine = {"epochs": 30, "learning_rate": 1e-3, "batch_size": 16}
    before = error(original)
    blind = METHODS["blindspot"].factory(learner, **options, blind_epochs=20)
    tuned = METHODS["finetune"].factory(learner, **fine)
    assert error(forgotten(tuned, request, original)) < before + 0.3
    assert error(forgotten(blind, request, original)) > before + 0.6


def spatial():
    """One convolution, whose maps have five positions; the mean of them predicts."""

    def init(key):
        return Variables({"kernel": jax.random.normal(key, (2, 3), jnp.float64)}, {})

    def maps(variables, inputs):
        pairs = jnp.stack([inputs, jnp.roll(inputs, 1, 1)], -1)
        return (jnp.tanh(pairs @ variables.params["kernel"]),)

    def apply(variables, inputs):
        return maps(variables, inputs)[0].mean(1)

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, apply), maps


def test_attention_enters_the_loss_of_the_forgotten_alone():
    model, maps = spatial()
    learner = LEARNER._replace(model=model)
    original = model.init(jax.random.key(4))
    options = {**BLIND, "beta": 7.0}
    found = forgotten(attentive_blindspot(learner, maps, **options), original=original)
    blind = blind_of(BLIND, learner)
    stays = np.setdiff1d(np.arange(tiny.COUNT), GONE)

    def attended(variables):
        power = np.mean if isinstance(variables, np.ndarray) else jnp.mean
        squares = power(maps(variables, DATA.inputs[GONE])[0] ** 2, axis=-1)
        return squares / jnp.linalg.norm(squares, axis=1, keepdims=True)

    def loss(params):
        own = Variables(params, {})
        kept = jnp.abs(model.apply(own, DATA.inputs[stays]) - DATA.targets[stays])
        told = model.apply(blind, DATA.inputs[GONE])
        lost = jnp.abs(model.apply(own, DATA.inputs[GONE]) - told)
        gap = (attended(own) - attended(blind)) ** 2
        part = jnp.sum(jnp.mean(lost, -1)) + 7.0 * jnp.sum(jnp.mean(gap, -1))
        return (jnp.sum(jnp.mean(kept, -1)) + part) / tiny.COUNT

    expected = tiny.quick_jit(lambda p: adam_step(loss, p))(original.params)
    assert_trees_close(found.params, expected, rtol=1e-6, atol=1e-8)


def test_attention_has_length_one_and_needs_positions():
    maps = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    np.testing.assert_allclose(np.linalg.norm(attention(maps), axis=1), 1)
    assert not np.any(attention(np.zeros((2, 3, 1))))
    with pytest.raises(ValueError, match="a dense layer has one position"):
        attention(maps[:, 0, 0])
