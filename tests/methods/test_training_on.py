"""Methods that train on: fine-tuning, ascent, both at once, random labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.batch import sample
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.identity import identity
from unlearn_jax.methods.neggrad_plus import neggrad_plus
from unlearn_jax.methods.random_labels import random_labels
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


@pytest.fixture(scope="module")
def objective(learner):
    return bind(learner.model, {}, learner.loss)


@pytest.fixture(scope="module")
def risk(objective):
    return tiny.quick_jit(objective.risk)


def run(method, original, request):
    return tiny.quick_jit(method.forget)(jax.random.key(3), (), original, request)[0]


def test_identity_hands_back_what_it_was_given(learner, original, request_a):
    given = identity(learner).forget(jax.random.key(0), (), original, request_a)[0]
    assert given is original


def test_finetune_lowers_the_retain_loss(learner, risk, original, request_a):
    method = finetune(learner, epochs=3, learning_rate=0.02, batch_size=8)
    moved = run(method, original, request_a)
    before = risk(original.params, request_a.retain)
    assert risk(moved.params, request_a.retain) < 0.99 * before


def test_a_share_of_a_pass_is_a_step_on_so_many_retained_examples(
    objective, original, request_a
):
    plain = tiny.learner("mlp", momentum=0.0, weight_decay=0.0)
    options = {"epochs": 1, "learning_rate": 0.25, "batch_size": 64}
    moved = run(finetune(plain, **options, share=0.5), original, request_a)
    change = tree.scale(4.0, tree.subtract(original.params, moved.params))
    count = len(request_a.retain.targets)
    key = jax.random.split(jax.random.key(3))[1]
    drawn = sample(key, request_a.retain, -(-count // 2))
    assert float(jnp.sum(drawn.weights)) == -(-count // 2)
    slope = tiny.quick_jit(jax.grad(objective.risk))(original.params, drawn)
    assert_trees_close(change, slope, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="share is 0"):
        finetune(plain, share=0.0)


def test_gradient_ascent_raises_the_forget_loss(learner, risk, original, request_a):
    method = gradient_ascent(learner, epochs=3, learning_rate=0.05, batch_size=4)
    moved = run(method, original, request_a)
    before = risk(original.params, request_a.forget)
    assert risk(moved.params, request_a.forget) > 1.5 * before


def test_one_step_of_ascent_is_the_gradient_without_any_decay(
    objective, original, request_a
):
    # Neither the recipe's weight decay nor the learner's l2 may push as well.
    decaying = tiny.learner("mlp", l2=0.5, weight_decay=0.5)
    method = gradient_ascent(decaying, epochs=1, learning_rate=0.25, batch_size=64)
    moved = run(method, original, request_a)
    slope = tiny.quick_jit(jax.grad(objective.risk))(original.params, request_a.forget)
    expected = tree.axpy(0.25, slope, original.params)
    assert_trees_close(moved.params, expected, rtol=1e-10, atol=1e-12)


def test_full_steps_of_neggrad_follow_the_weighted_difference(
    objective, original, request_a
):
    # Neither momentum nor decay of the recipe takes part; l2 does, on one side.
    heavy = tiny.learner("mlp", l2=0.5, weight_decay=0.5, momentum=0.9)
    method = neggrad_plus(
        heavy,
        share=0.75,
        epochs=3,
        learning_rate=0.25,
        retain_batch=64,
        forget_batch=64,
    )
    moved = run(method, original, request_a)
    slope = tiny.quick_jit(jax.grad(objective.risk))
    params = original.params
    for _ in range(3):
        down, up = (slope(params, part) for part in request_a[::-1])
        params = jax.tree.map(
            lambda p, d, u: p - 0.25 * (0.75 * (d + 0.5 * p) - 0.25 * u),
            params,
            down,
            up,
        )
    assert_trees_close(moved.params, params, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("forget_batch", [2, 4, 6])
def test_every_forgotten_example_comes_up_as_often(
    learner, objective, original, request_a, forget_batch
):
    # Three steps, twelve places at most for six examples; steps so short that only
    # first order counts. Nothing is retained but the number of steps.
    rate = 2.0**-24
    method = neggrad_plus(
        learner,
        share=0.0,
        epochs=1,
        learning_rate=rate,
        retain_batch=14,
        forget_batch=forget_batch,
    )
    moved = run(method, original, request_a)
    shift = tree.scale(1 / rate, tree.subtract(moved.params, original.params))
    slope = tiny.quick_jit(jax.grad(objective.risk))(original.params, request_a.forget)
    assert_trees_close(shift, tree.scale(3.0, slope), rtol=1e-4, atol=1e-5)


def test_neggrad_refuses_shares_above_one(learner):
    with pytest.raises(ValueError, match=r"share must be from 0 to 1, got 1\.5"):
        neggrad_plus(learner, share=1.5)


def test_random_labels_lower_the_accuracy_on_the_forget_set(
    learner, original, request_a
):
    # A request of many examples, so that the retain passes cannot restore them.
    forget = request_a.retain._replace(weights=1.0 * (np.arange(tiny.COUNT) < 24))
    retain = forget._replace(weights=1 - forget.weights)
    request = request_a._replace(forget=forget, retain=retain)
    method = random_labels(learner, epochs=20, learning_rate=0.05, batch_size=4)
    moved = run(method, original, request)

    def accuracy(variables, rows):
        outputs = learner.model.apply(variables, forget.inputs)
        return np.mean((np.argmax(outputs, 1) == forget.targets)[rows])

    lost, kept = slice(0, 24), slice(24, 48)
    assert accuracy(original, lost) > 0.85
    assert accuracy(moved, lost) < accuracy(original, lost) - 0.1
    assert accuracy(moved, kept) > 0.85


def test_random_labels_do_not_depend_on_the_true_ones(learner, original, request_a):
    method = random_labels(learner, epochs=1, learning_rate=0.1, batch_size=4)
    forget = tiny.quick_jit(method.forget)
    shifted = (request_a.forget.targets + 1) % tiny.CLASSES
    other = request_a._replace(forget=request_a.forget._replace(targets=shifted))
    key = jax.random.key(3)
    moved = forget(key, (), original, request_a)
    assert_trees_close(forget(key, (), original, other), moved, rtol=0)


def test_both_passes_of_random_labels_decay_alike(original, request_a):
    # Nothing to retain: what l2 does in the one pass that is left must show.
    nothing = jnp.zeros(tiny.COUNT)
    request = request_a._replace(retain=request_a.retain._replace(weights=nothing))
    norms = [
        tree.norm(
            run(
                random_labels(tiny.learner("mlp", l2=l2), epochs=1, learning_rate=0.1),
                original,
                request,
            ).params
        )
        for l2 in (0.0, 1.0)
    ]
    assert norms[1] < 0.95 * norms[0]
