import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from asserts import assert_trees_close
from problems import batch_norm_net, ridge, softmax, two_layer

from unlearn_jax import tree
from unlearn_jax.models import MODELS, Model
from unlearn_jax.train.fit import (
    choose_fit_loop,
    fit,
    fit_watched,
    training_loss,
    weighted_mean,
)
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables
from unlearn_kernels.target import targeting


def on_host(learner):
    return learner._replace(recipe=dataclasses.replace(learner.recipe, loop="host"))


def foreign_model():
    """A model of no library, with XLA's own convolution."""

    def init(key):
        kernel = 0.3 * jax.random.normal(key, (3, 3, 1, 2))
        return Variables({"kernel": kernel, "head": jnp.eye(2, 3)}, {})

    def features(variables, inputs):
        values = jax.lax.conv_general_dilated(
            inputs,
            variables.params["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.mean(jnp.tanh(values), axis=(1, 2))

    def apply(variables, inputs):
        return features(variables, inputs) @ variables.params["head"]

    return Model(init, apply, lambda key, v, x: (apply(v, x), v), features)


@pytest.fixture(scope="module")
def convex():
    """(learner, data, compiled fit from a start that is not the optimum)."""
    learner, data = softmax()
    start = Variables(
        {"head": {"kernel": jnp.ones((4, 3)), "bias": jnp.arange(3.0)}}, {}
    )
    run = jax.jit(lambda key, d: fit(key, learner, d, start=start))
    return learner, data, run


@pytest.fixture(scope="module")
def net():
    """(learner, data, compiled fit, number of times it was traced)."""
    learner, data = two_layer()
    traces = []

    def traced(key, d):
        traces.append(1)
        return fit(key, learner, d)

    return learner, data, jax.jit(traced), traces


def test_full_batch_training_reaches_the_optimum_that_scipy_finds(convex, key):
    learner, data, run = convex
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    like = run(key, data).params
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    value = jax.jit(jax.value_and_grad(lambda v, d: objective.risk(unravel(v), d)))
    best = scipy.optimize.minimize(
        lambda v: tuple(map(np.asarray, value(jnp.asarray(v), data))),
        np.zeros(flat.size),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-10},
    )
    np.testing.assert_allclose(flat, best.x, atol=1e-8)


def test_training_reaches_the_closed_form_of_ridge(key):
    learner, data, solve = ridge()
    weights = jnp.linspace(0.0, 1.0, 20)
    done = jax.jit(lambda d: fit(key, learner, d))(data._replace(weights=weights))
    assert_trees_close(done.params, solve(weights), rtol=1e-8, atol=1e-8)


def test_on_a_convex_problem_the_key_does_not_matter(convex):
    _, data, run = convex
    first, second = (run(jax.random.key(i), data) for i in (0, 1))
    assert_trees_close(first, second, rtol=0, atol=1e-8)


def test_masked_training_equals_training_on_the_subset(convex, key):
    _, data, run = convex
    kept = np.flatnonzero(np.arange(24) % 3)
    weights = jnp.zeros(24).at[kept].set(jnp.linspace(0.5, 2.0, len(kept)))
    masked = run(key, data._replace(weights=weights))
    subset = jax.tree.map(lambda leaf: leaf[kept], data._replace(weights=weights))
    assert_trees_close(masked, run(key, subset), rtol=1e-10, atol=1e-10)
    full = run(key, data)
    assert float(tree.norm(tree.subtract(masked.params, full.params))) > 1e-3


def test_the_same_key_gives_the_same_result_and_another_key_another(net, key):
    _, data, run, _ = net
    first, again, other = run(key, data), run(key, data), run(jax.random.key(1), data)
    assert_trees_close(first, again, rtol=0)
    assert float(tree.norm(tree.subtract(first.params, other.params))) > 1e-2


def test_other_weights_of_the_same_shape_need_no_second_compilation(net, key):
    _, data, run, traces = net
    for count in (18, 7, 1, 0):
        run(key, data._replace(weights=(jnp.arange(18) < count).astype(float)))
    assert len(traces) == 1


def test_without_any_weight_the_start_comes_back(convex, key):
    _, data, run = convex
    done = run(key, data._replace(weights=jnp.zeros(24)))
    expected = {"head": {"kernel": jnp.ones((4, 3)), "bias": jnp.arange(3.0)}}
    assert_trees_close(done, Variables(expected, {}), rtol=0)


def test_the_host_loop_equals_the_device_loop(net, key):
    learner, data, run, _ = net
    host = fit(key, on_host(learner), data)
    assert_trees_close(host, run(key, data), rtol=1e-6, atol=1e-8)


def test_mapping_over_keys_and_weights_equals_the_single_runs(net):
    learner, data, run, _ = net
    keys = jax.random.split(jax.random.key(3), 2)
    weights = jnp.stack([jnp.ones(18), (jnp.arange(18) < 7).astype(float)])
    stacked = jax.jit(jax.vmap(lambda k, w: fit(k, learner, data._replace(weights=w))))(
        keys, weights
    )
    for i in range(2):
        single = run(keys[i], data._replace(weights=weights[i]))
        assert_trees_close(tree.member(stacked, i), single, rtol=1e-6, atol=1e-8)


def test_data_that_rest_in_numpy_train_as_well(net, key):
    learner, data, run, _ = net
    resting = jax.tree.map(np.asarray, data)
    done = fit(key, learner, resting)
    assert_trees_close(done, run(key, data), rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def watched(net):
    """(result, the state after every epoch)."""
    learner, data, _, _ = net
    states = []
    done = fit_watched(jax.random.key(0), learner, data, watch=states.append)
    return done, states


def test_watched_training_equals_training(net, watched, key):
    _, data, run, _ = net
    done, states = watched
    assert_trees_close(done, run(key, data), rtol=1e-6, atol=1e-8)
    assert [int(state.epochs_done) for state in states] == [1, 2, 3]
    assert [int(state.train.step) for state in states] == [5, 10, 15]
    assert_trees_close(states[-1].train.variables, done, rtol=0)
    losses = [float(state.train.loss) for state in states]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(net, watched, key, epoch):
    learner, data, _, _ = net
    done, states = watched
    later = []
    resumed = fit_watched(
        key, learner, data, watch=later.append, state=states[epoch - 1]
    )
    assert_trees_close(resumed, done, rtol=0)
    assert len(later) == 3 - epoch
    for state, expected in zip(later, states[epoch:], strict=True):
        assert_trees_close(state, expected, rtol=0)


def test_watching_on_the_host_equals_training_on_the_host(net, key):
    learner, data, _, _ = net
    states = []
    done = fit_watched(key, on_host(learner), data, watch=states.append)
    assert_trees_close(done, fit(key, on_host(learner), data), rtol=0)
    assert len(states) == 3


@pytest.fixture(scope="module")
def foreign():
    recipe = Recipe(epochs=2, batch_size=4)
    learner = Learner(foreign_model(), cross_entropy, 1e-3, recipe)
    _, data = batch_norm_net()
    return learner, data


def test_raw_convolutions_on_cpu_train_on_the_host_and_inside_jit_on_the_device(
    foreign, key
):
    learner, data = foreign
    assert choose_fit_loop(learner, data) == "host"
    assert choose_fit_loop(two_layer()[0], two_layer()[1]) == "device"
    host = fit(key, learner, data)
    device = jax.jit(lambda k: fit(k, learner, data))(key)
    assert_trees_close(host, device, rtol=1e-6, atol=1e-8)
    with targeting("gpu"):
        assert choose_fit_loop(learner, data) == "device"


def test_whatever_is_traced_the_steps_run_on_the_device(foreign, key):
    learner, data = foreign
    chosen = []
    jax.eval_shape(lambda k: chosen.append(choose_fit_loop(learner, data, k)), key)
    jax.eval_shape(
        lambda w: chosen.append(choose_fit_loop(learner, data._replace(weights=w))),
        data.weights,
    )
    assert chosen == ["device", "device"]
    assert choose_fit_loop(on_host(learner), data, key) == "host"


def test_our_own_convolutions_train_in_one_compiled_loop():
    for name in ("cnn", "resnet9"):
        model = MODELS[name]((12, 12, 1), 3)
        data = Batch(np.zeros((2, 12, 12, 1), np.float32), np.zeros(2), np.ones(2))
        assert choose_fit_loop(Learner(model, cross_entropy), data) == "device"


def test_the_step_loss_is_the_risk_in_training_mode(key):
    learner, data = softmax()
    params = {"head": {"kernel": jnp.ones((4, 3)), "bias": jnp.arange(3.0)}}
    weights = jnp.linspace(0.0, 1.0, 24)
    value, stats = training_loss(learner)(
        key, params, {}, (data.inputs, data.targets), weights
    )
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    expected = objective.risk(params, data._replace(weights=weights))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert stats == {}


@pytest.mark.parametrize("augment", ["none", "flip_crop"])
def test_augmentation_is_drawn_inside_the_step(augment):
    def apply_train(key, variables, inputs):
        return inputs.reshape(len(inputs), -1), variables

    model = foreign_model()._replace(apply_train=apply_train)
    loss = jax.jit(
        training_loss(Learner(model, cross_entropy, recipe=Recipe(augment=augment)))
    )
    _, data = batch_norm_net(side=6)

    def value(seed):
        examples = (data.inputs, data.targets)
        return float(loss(jax.random.key(seed), {}, {}, examples, data.weights)[0])

    assert value(0) == value(0)
    assert (value(0) == value(1)) == (augment == "none")


def test_the_weighted_mean_of_nothing_is_zero():
    values = jnp.array([1.0, 5.0])
    assert float(weighted_mean(values, jnp.array([3.0, 1.0]))) == 2.0
    assert float(weighted_mean(values, jnp.zeros(2))) == 0.0


def test_the_loss_falls_when_computing_in_bfloat16(key):
    _, data = two_layer()
    model = MODELS["mlp"]((4,), 3, widths=(5,), compute_dtype=jnp.bfloat16)
    recipe = Recipe(epochs=30, batch_size=6, learning_rate=0.05, optimizer="adam")
    learner = Learner(model, cross_entropy, 1e-3, recipe)
    data = data._replace(inputs=data.inputs.astype(jnp.float32))
    done = jax.jit(lambda k, d: fit(k, learner, d))(key, data)
    assert {leaf.dtype for leaf in jax.tree.leaves(done)} == {np.dtype("float32")}
    losses = cross_entropy(model.apply(done, data.inputs), data.targets)
    assert float(losses.mean()) < 0.5 * np.log(3)  # half of what knowing nothing costs
