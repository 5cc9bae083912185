"""DUCK: centroids, targets by label, one step by hand, and when it stops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.methods import make_request
from unlearn_jax.methods.centres import nearest_other
from unlearn_jax.methods.duck import bind_to_centroids, duck
from unlearn_jax.methods.potion import label_agreement

KEY = jax.random.key(3)


def hidden(params, inputs):
    (layer,) = params["hidden"].values()
    return np.tanh(inputs @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def without_first(train):
    """The request for class 0, whose removal shifts the numbers of the others."""
    return make_request(train, np.flatnonzero(np.asarray(train.targets) == 0))


def sent_by_hand(params, request):
    """(means, chosen class) by label, in plain numpy."""
    kept, lost = (jax.tree.map(np.asarray, part) for part in request)
    there = kept.weights > 0
    features = hidden(params, kept.inputs)
    means = np.full((tiny.CLASSES, tiny.WIDTH), np.nan)
    for label in range(tiny.CLASSES):
        own = there & (kept.targets == label)
        if own.any():
            means[label] = features[own].mean(0)
    rows = lost.weights > 0
    cosines = unit(hidden(params, lost.inputs[rows])) @ unit(means).T
    cosines[np.arange(rows.sum()), lost.targets[rows]] = np.nan
    return means, np.nanargmax(cosines, axis=1), rows


@pytest.mark.parametrize("name", ["without_first", "request_a"])
def test_everyone_goes_to_the_nearest_class_that_stays(name, request, original):
    asked = request.getfixturevalue(name)
    learner = tiny.learner("mlp")
    bound, whole = tiny.quick_jit(lambda v, r: bind_to_centroids(learner, v, r))(
        original, asked
    )
    means, chosen, rows = sent_by_hand(original.params, (asked.retain, asked.forget))
    np.testing.assert_allclose(
        np.asarray(bound.centres)[rows], means[chosen], rtol=1e-9
    )
    np.testing.assert_array_equal(np.asarray(bound.weights) > 0, rows)
    assert bool(whole) == (name == "without_first")
    if name == "without_first":
        assert set(chosen) == {1, 2}  # by place, class 1 would pass for the own


def test_classes_go_by_label_where_one_is_gone():
    distances = jnp.array([[9.0, 1.0, 2.0], [9.0, 1.0, 2.0], [0.1, 1.0, 2.0]])
    there = jnp.array([False, True, True])
    labels = jnp.array([0, 1, 0])
    chosen = tiny.quick_jit(nearest_other)(distances, labels, there)
    np.testing.assert_array_equal(chosen, [1, 2, 1])


def test_one_step_of_adam_has_the_signs_of_both_terms(without_first, original):
    # Adam's first step is the learning rate times the sign of the gradient.
    learner = tiny.learner("mlp")
    means, chosen, rows = sent_by_hand(
        original.params, (without_first.retain, without_first.forget)
    )
    lost = np.asarray(without_first.forget.inputs)[rows]
    kept, rate = without_first.retain, 1e-4

    def loss(params):
        (layer,) = params["hidden"].values()
        features = jnp.tanh(lost @ layer["kernel"] + layer["bias"][None])
        lengths = jnp.linalg.norm(features, axis=1)
        cosines = jnp.sum(features * unit(means[chosen]), axis=1) / lengths
        outputs = learner.model.apply(original._replace(params=params), kept.inputs)
        losses = learner.loss(outputs / 3.0, kept.targets) * kept.weights
        return 0.7 * jnp.mean(1 - cosines) + 1.1 * losses.sum() / kept.weights.sum()

    slope = tiny.quick_jit(jax.grad(loss))(original.params)
    method = duck(
        learner,
        forget_weight=0.7,
        retain_weight=1.1,
        temperature=3.0,
        goal=1.0,
        epochs=1,
        learning_rate=rate,
        batch_size=64,
        repair_epochs=0,
    )
    moved = tiny.unlearned(method, original, without_first)
    expected = jax.tree.map(
        lambda p, g: p - rate * g / (jnp.abs(g) + 1e-8), original.params, slope
    )
    assert_trees_close(moved.params, expected, rtol=1e-7, atol=1e-10)


def test_it_goes_on_until_the_class_is_unknown_and_no_further(without_first, original):
    learner = tiny.learner("mlp")
    options = {"learning_rate": 0.02, "batch_size": 64, "repair_epochs": 0}

    @tiny.quick_jit
    def right(variables):
        return label_agreement(learner, variables, without_first.forget)

    found = [
        right(
            tiny.unlearned(duck(learner, epochs=n, **options), original, without_first)
        )
        for n in (200, 2)
    ]
    assert right(original) > 0.8
    assert found[0] < 0.01 < found[1]
    long, longer = (
        tiny.unlearned(duck(learner, epochs=n, **options), original, without_first)
        for n in (200, 150)
    )
    assert_trees_close(long, longer, rtol=0)


def test_a_second_phase_can_be_left_out(without_first, original):
    learner = tiny.learner("mlp")
    options = {"learning_rate": 0.02, "batch_size": 64, "repair_rate": 0.01}
    bare, mended = (
        tiny.unlearned(
            duck(learner, repair_epochs=n, **options), original, without_first
        )
        for n in (0, 4)
    )

    @tiny.quick_jit
    def risk(variables):
        outputs = learner.model.apply(variables, without_first.retain.inputs)
        losses = learner.loss(outputs, without_first.retain.targets)
        return jnp.sum(losses * without_first.retain.weights)

    assert risk(mended) < risk(bare)


def test_a_class_alone_has_nowhere_to_go(train, original):
    alone = train._replace(targets=np.zeros_like(train.targets))
    request = make_request(alone, [0, 1])
    method = duck(tiny.learner("mlp"), goal=0.5)
    with pytest.raises(ValueError, match=r"no retained class but 0 for example 0"):
        method.forget(KEY, jnp.float32(0.5), original, request)
    with pytest.raises(ValueError, match="temperature must be positive"):
        duck(tiny.learner("mlp"), temperature=0.0)
