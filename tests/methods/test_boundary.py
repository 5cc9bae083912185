"""Boundary shrink and expanding: whom the forget set is given to, and the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.boundary_expanding import (
    boundary_expanding,
    draw_logit,
    expanded,
    wide_outputs,
)
from unlearn_jax.methods.boundary_shrink import boundary_shrink
from unlearn_jax.train.objective import bind

KEY = jax.random.key(3)
ONE_STEP = {"epochs": 1, "learning_rate": 0.25, "batch_size": 64}


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


def run(method, original, request):
    return tiny.quick_jit(method.forget)(KEY, (), original, request)[0]


def logits(params, inputs):
    """The tiny net in numpy."""
    (hidden,), head = params["hidden"].values(), params["head"]
    values = np.tanh(inputs @ hidden["kernel"] + hidden["bias"])
    return values @ head["kernel"] + head["bias"]


def neighbour(params, x, label, step, low, high):
    """The likeliest other class after a step uphill, by differences of the loss."""

    def loss(x):
        outputs = logits(params, x)
        return np.log(np.sum(np.exp(outputs))) - outputs[label]

    width = 1e-6
    slope = [loss(x + width * e) - loss(x - width * e) for e in np.eye(len(x))]
    moved = np.clip(x + step * (high - low) * np.sign(slope), low, high)
    order = np.argsort(logits(params, moved))
    return order[-2] if order[-1] == label else order[-1]


def test_shrink_fits_the_nearest_other_class(learner, request_a):
    # An untrained net and inputs at the ends of their range, so that the step, these
    # ends, and that three examples stay in their own class all count.
    original = learner.model.init(jax.random.key(7))
    params = jax.tree.map(np.array, original.params)
    forget = request_a.forget
    forget = forget._replace(inputs=np.clip(forget.inputs, -1, 1))
    there = np.flatnonzero(forget.weights)

    def given(step, reach):
        labels = np.array(forget.targets)
        for i in there:
            x = forget.inputs[i]
            labels[i] = neighbour(params, x, labels[i], step, -reach, reach)
        return labels

    labels = given(0.1, 1.0)
    assert (labels[there] != forget.targets[there]).all()
    assert (labels != given(0.0, 1.0)).any()
    assert (labels != given(0.001, 100.0)).any()
    risk = bind(learner.model, {}, learner.loss).risk
    other = forget._replace(targets=labels)
    slope = tiny.quick_jit(jax.grad(risk))(original.params, other)
    request = request_a._replace(forget=forget)
    moved = run(boundary_shrink(learner, step=0.1, **ONE_STEP), original, request)
    expected = tree.axpy(-0.25, slope, original.params)
    assert_trees_close(moved.params, expected, rtol=1e-10, atol=1e-12)


def test_shrink_refuses_inputs_without_a_gradient(original, request_a):
    model = tiny.learner("mlp").model
    tokens = model._replace(apply=lambda v, x: model.apply(v, jax.nn.one_hot(x, 5)))
    method = boundary_shrink(tiny.learner("mlp")._replace(model=tokens))
    numbers = [part._replace(inputs=part.targets) for part in request_a]
    request = request_a._replace(forget=numbers[0], retain=numbers[1])
    with pytest.raises(ValueError, match="got inputs of int32, expected floating"):
        method.forget(KEY, (), original, request)


def test_expanding_steps_towards_a_class_of_its_own_that_is_dropped(
    learner, original, request_a
):
    forget = request_a.forget
    extra = draw_logit(jax.random.split(KEY)[0], tiny.WIDTH, jnp.float64)

    def wider(params):
        head = params["head"]
        kernel = jnp.concatenate([head["kernel"], extra["kernel"][:, None]], 1)
        bias = jnp.append(head["bias"], extra["bias"])
        return {**params, "head": {"kernel": kernel, "bias": bias}}

    def risk(params):
        outputs = learner.model.apply(original._replace(params=wider(params)), x)
        return -jnp.mean(jax.nn.log_softmax(outputs)[:, tiny.CLASSES])

    x = forget.inputs[np.asarray(forget.weights) > 0]
    slope = tiny.quick_jit(jax.grad(risk))(original.params)
    moved = run(boundary_expanding(learner, **ONE_STEP), original, request_a)
    expected = tree.axpy(-0.25, slope, original.params)
    assert_trees_close(moved.params, expected, rtol=1e-10, atol=1e-12)


def test_expanding_as_published_keeps_the_class_and_gives_it_the_forget_set(
    learner, original, request_a
):
    longer = ONE_STEP | {"epochs": 40}
    kept = tiny.quick_jit(expanded(learner, **longer))(KEY, original, request_a)
    dropped = run(boundary_expanding(learner, **longer), original, request_a)
    assert_trees_close(kept.variables.params, dropped.params, rtol=0)
    params = jax.tree.map(np.array, kept.variables.params)
    (hidden,), inputs = params["hidden"].values(), np.asarray(request_a.forget.inputs)
    features = np.tanh(inputs @ hidden["kernel"] + hidden["bias"])
    new = features @ np.asarray(kept.extra["kernel"]) + float(kept.extra["bias"])
    found = wide_outputs(learner.model, kept, inputs)
    expected = np.column_stack([logits(params, inputs), new])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    told = expected.argmax(1)[np.asarray(request_a.forget.weights) > 0]
    assert (told == tiny.CLASSES).mean() > 0.9


def test_a_new_logit_is_drawn_from_one_over_the_root_of_its_width():
    drawn = draw_logit(KEY, 400, jnp.float64)
    assert drawn["bias"].shape == ()
    assert 0.049 < np.max(np.abs(drawn["kernel"])) <= 0.05
    assert np.std(drawn["kernel"]) == pytest.approx(0.05 / 3**0.5, rel=0.1)
