"""The parts of unrolled removal: goals, trust regions, and requests in a row."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.trace import losses_of
from unlearn_jax.attribution.unseen import (
    Unseen,
    foreign_losses,
    unretained,
    unseen_loss,
)
from unlearn_jax.curvature.kronecker_inverse import kronecker_operator
from unlearn_jax.curvature.operator import dense
from unlearn_jax.data.accumulate import present
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods.lesson import with_lesson, without_label
from unlearn_jax.methods.natural_ascent import natural_ascent
from unlearn_jax.methods.source_removal import source_removal
from unlearn_jax.methods.unrolled_removal import unrolled_removal
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Recipe

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def known(train, originals, traces):
    learner = tiny.learner("mlp")
    original, trace = (tree.member(x("mlp"), 0) for x in (originals, traces))
    return learner, original, trace, jax.tree.map(jnp.asarray, train)


def holding(trace, loss):
    """The trace with another loss of the unseen, whatever is forgotten."""
    known = {"held_out": jnp.asarray(loss), "learned": jnp.zeros(())}
    return trace._replace(unseen=trace.unseen._replace(**known))


def loss_of(learner, variables, data):
    objective = bind(learner.model, variables.stats, learner.loss)
    return float(objective.risk(variables.params, data))


def test_the_forget_loss_stops_at_the_goal(known):
    learner, original, trace, train = known
    request = make_request(train, np.arange(0, 12))
    method = natural_ascent(learner, nats=0.5, steps=200)

    @tiny.quick_jit
    def run(trace, request):
        state = method.prepare(KEY, original, train, trace)
        return method.forget(KEY, state, original, request)[0]

    before = loss_of(learner, original, request.forget)
    for factor in (1.5, 3.0):
        goal = factor * before
        moved = run(holding(trace, goal), request)
        found = loss_of(learner, moved, request.forget)
        # A line between two losses meets the goal but for its bend.
        np.testing.assert_allclose(found, goal, atol=0.15 * (goal - before))
    still = run(holding(trace, 0.5 * before), request)
    assert_trees_close(still, original, rtol=0, atol=0)


def test_a_step_ends_on_the_border_of_its_region(known):
    """½ dᵀF d over the training set is nats, F dense; measured KL grows with it."""
    learner, original, trace, train = known
    request = make_request(train, np.arange(0, 12))
    trace = holding(trace, 1e3)

    @tiny.quick_jit
    def steps(trace):
        old = jax.nn.log_softmax(learner.model.apply(original, train.inputs))
        matrix = dense(kronecker_operator(trace.last, original.params))
        found = []
        for nats in (1e-4, 4e-4):
            method = natural_ascent(learner, nats=nats, steps=1)
            state = method.prepare(KEY, original, train, trace)
            moved, _ = method.forget(KEY, state, original, request)
            step = tree.subtract(moved.params, original.params)
            flat, _ = jax.flatten_util.ravel_pytree(step)
            new = jax.nn.log_softmax(learner.model.apply(moved, train.inputs))
            divergence = jnp.sum(jnp.exp(old) * (old - new))
            found.append((0.5 * flat @ matrix @ flat * len(old), divergence))
        return found

    (small, near), (large, far) = steps(trace)
    np.testing.assert_allclose([small, large], [1e-4, 4e-4], rtol=1e-7)
    np.testing.assert_allclose(far / near, 4, rtol=0.05)


def test_goals_are_held_out_losses_or_those_of_labels_nobody_has(known):
    learner, original, trace, train = known
    objective = bind(learner.model, original.stats, learner.loss)
    foreign = foreign_losses(objective, original.params, train)
    logp = jax.nn.log_softmax(learner.model.apply(original, train.inputs))
    for label in range(tiny.CLASSES):
        others = np.asarray(train.targets) != label
        expected = -np.mean(np.asarray(logp)[others, label])
        np.testing.assert_allclose(foreign[label], expected, rtol=1e-10)
    np.testing.assert_allclose(trace.unseen.foreign, foreign, rtol=1e-7)
    unseen = Unseen(jnp.asarray(0.25), jnp.asarray(0.1), foreign)
    none = unseen._replace(learned=jnp.zeros(()))

    def goal_of(request, known=unseen):
        own = losses_of(learner, original, request.forget)
        mean = jnp.sum(request.forget.weights * own) / jnp.sum(request.forget.weights)
        return *unseen_loss(known, *request, own), float(mean)

    # As many times its own loss as the examples left out have of theirs.
    some = make_request(train, [0, 1, 2])
    goal, alone, own = goal_of(some)
    np.testing.assert_allclose(goal, 2.5 * own, rtol=1e-10)
    np.testing.assert_allclose(goal_of(some, none)[0], 0.25)
    assert not alone
    label = np.flatnonzero(np.asarray(train.targets) == 1)
    goal, alone, _ = goal_of(make_request(train, label))
    np.testing.assert_allclose(goal, foreign[1], rtol=1e-10)
    assert alone
    *_, own = goal_of(make_request(train, [0]))
    mixed = (len(label) * foreign[1] + 2.5 * own) / (len(label) + 1)
    found = goal_of(make_request(train, [*label, 0]))[0]
    np.testing.assert_allclose(found, mixed, rtol=1e-10)


def test_a_response_ends_where_a_label_that_nobody_has_is_unknown(known):
    learner, original, trace, train = known
    whole = make_request(train, np.flatnonzero(np.asarray(train.targets) == 1))
    some = make_request(train, np.arange(0, 12))

    @tiny.quick_jit
    def run(trace, request):
        own = losses_of(learner, original, request.forget)
        goal, _ = unseen_loss(trace.unseen, *request, own)
        found = []
        for scale in (0.5, 30.0):
            method = source_removal(learner, scale=scale)
            state = method.prepare(KEY, original, train, trace)
            found.append(method.forget(KEY, state, original, request)[0])
        return goal, *found

    goal, near, far = run(trace, whole)
    found = loss_of(learner, far, whole.forget)
    assert loss_of(learner, near, whole.forget) < goal <= found < 1.5 * goal
    # Where others have the label the step is what it is.
    _, near, far = run(trace, some)
    near, far = (tree.subtract(v.params, original.params) for v in (near, far))
    assert_trees_close(far, tree.scale(60.0, near), rtol=1e-8, atol=1e-10)


def test_a_response_to_a_lost_label_ends_at_chance(known):
    learner, original, trace, train = known
    whole = make_request(train, np.flatnonzero(np.asarray(train.targets) == 1))
    mixed = make_request(train, [0, *np.flatnonzero(np.asarray(train.targets) == 1)])
    with pytest.raises(ValueError, match="until is 'never'; choose from unseen, chanc"):
        source_removal(learner, until="never")
    method = source_removal(learner, scale=30.0, until="chance")

    @tiny.quick_jit
    def run(trace, request):
        state = method.prepare(KEY, original, train, trace)
        return method.forget(KEY, state, original, request)[0]

    for request in (whole, mixed):
        found = loss_of(learner, run(trace, request), whole.forget)
        assert math.log(tiny.CLASSES) <= found < 1.5 * math.log(tiny.CLASSES)


def test_a_label_is_taken_out_and_the_odds_of_the_others_are_kept():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(6, 4))
    labels, losses = random.integers(4, size=6), random.uniform(0.1, 30, size=6)
    said = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    found = np.asarray(without_label(jnp.asarray(said), labels, jnp.asarray(losses)))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(found[np.arange(6), labels], -losses, rtol=1e-12)
    others = np.arange(4)[None] != labels[:, None]
    moved = (found - outputs)[others].reshape(6, 3)
    np.testing.assert_allclose(moved - moved[:, :1], 0, atol=1e-12)


def test_a_lost_label_is_taught_away_and_nothing_else_is(known):
    """One full step is the gradient of labels retained and of odds of lost examples."""
    learner, original, trace, train = known
    train = train._replace(inputs=train.inputs.at[2].set(jnp.nan))
    train = train._replace(weights=train.weights.at[2].set(0.0))
    gone = [0, *np.flatnonzero(np.asarray(train.targets * train.weights) == 1)]
    request = make_request(train, gone)
    lost = np.array(unretained(trace.unseen, *request))
    lost &= np.asarray(request.forget.weights) > 0
    assert lost.sum() == len(gone) - 1
    lost = jnp.asarray(lost)

    other = original._replace(params=tree.scale(0.7, original.params))

    def odds(at, labels, losses):
        said = jax.nn.log_softmax(learner.model.apply(at, request.forget.inputs))
        return jnp.exp(without_label(said, labels, losses))

    @tiny.quick_jit
    def slopes(params, trace):
        both = original, other
        taught, data = with_lesson(learner, both, trace.unseen, request, lost)
        ours = bind(learner.model, {}, taught.loss)
        slope = jax.grad(ours.total)(params, present(data))
        labels = request.forget.targets
        losses = trace.unseen.foreign[labels]
        lesson = jnp.log(sum(odds(at, labels, losses) for at in both) / 2)

        def by_hand(at):
            plain = bind(learner.model, {}, learner.loss)
            logp = jax.nn.log_softmax(plain.predict(at, request.forget.inputs))
            apart = jnp.sum(jnp.exp(lesson) * (lesson - logp), axis=1)
            own = jnp.sum(jnp.where(lost, apart, 0))
            return plain.total(at, present(request.retain)) + own

        return slope, jax.grad(by_hand)(params), jnp.sum(data.weights)

    ours, theirs, mass = slopes(tree.scale(1.1, original.params), trace)
    assert_trees_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert float(mass) == float(jnp.sum(train.weights)) - 1


@pytest.mark.parametrize("polish", [0.05, 0.1])
def test_where_others_have_the_labels_it_is_the_chain_of_its_parts(known, polish):
    learner, original, trace, train = known
    request = make_request(train, [0, 4, 9])
    whole = unrolled_removal(learner, steps=3, polish=polish)
    assert whole.reads_trace
    parts = [
        METHODS["source_removal"].factory(learner, scale=1.0),
        METHODS["finetune"].factory(
            learner,
            epochs=1,
            learning_rate=0.5 * learner.recipe.learning_rate,
            batch_size=learner.recipe.batch_size,
            schedule="cosine",
            share=polish * learner.recipe.epochs,
        ),
        METHODS["natural_ascent"].factory(learner, steps=3),
    ]
    assert learner.recipe.epochs == 10

    @tiny.quick_jit
    def both(trace):
        state = whole.prepare(KEY, original, train, trace)
        found, _ = whole.forget(KEY, state, original, request)
        at = original
        for part, key in zip(parts, jax.random.split(KEY, 3), strict=True):
            given = (trace,) if part.reads_trace else ()
            own = part.prepare(key, original, train, *given)
            at, _ = part.forget(key, own, at, request)
        return found, at

    assert_trees_close(*both(trace), rtol=1e-9, atol=1e-12)


def test_of_a_lost_label_it_is_a_descent_taught_by_response_and_a_new_net(known):
    """And mixed with others it climbs for those alone."""
    learner, original, trace, train = known
    gone = np.flatnonzero(np.asarray(train.targets) == 1)
    whole = unrolled_removal(learner, retraining=0.2, polish=0.1)
    respond = source_removal(learner, until="chance")
    peak = learner.recipe.learning_rate
    assert learner.recipe.epochs == 10

    def falling(epochs, rate):
        how = {"epochs": epochs, "learning_rate": rate, "schedule": "cosine"}
        return replace(learner.recipe, **how)

    def by_parts(trace, request, alone):
        lost = request.forget.targets == 1
        lost &= request.forget.weights > 0
        moved, _ = respond.forget(KEY, trace, original, request)
        keys = jax.random.split(jax.random.fold_in(KEY, 1))
        short = learner._replace(recipe=falling(2, peak))
        start = learner.model.init(keys[0])
        new = fit(keys[1], short, request.retain, start=start)
        taught, data = with_lesson(learner, (moved, new), trace.unseen, request, lost)
        brief = taught._replace(recipe=falling(1, peak / 2))
        key = jax.random.split(KEY, 3)[1]
        found = fit(key, brief, data, start=moved)
        if not alone:
            ascent = natural_ascent(learner)
            weights = jnp.where(lost, 0, request.forget.weights)
            others = request._replace(forget=request.forget._replace(weights=weights))
            known = ascent.prepare(KEY, original, train, trace)
            found, _ = ascent.forget(KEY, known, found, others)
        return found

    @tiny.quick_jit
    def both(trace):
        state = whole.prepare(KEY, original, train, trace)
        found = []
        more = [*gone, *np.flatnonzero(np.asarray(train.targets) != 1)[:2]]
        for indices, alone in ((gone, True), (more, False)):
            request = make_request(train, indices)
            ours, _ = whole.forget(KEY, state, original, request)
            found.append((ours, by_parts(trace, request, alone)))
        return found

    for ours, theirs in both(trace):
        assert_trees_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_is_refused(known):
    learner, original, trace, train = known
    adam = learner._replace(recipe=Recipe(optimizer="adam"))
    with pytest.raises(ValueError, match="reads the learning rates of SGD"):
        natural_ascent(adam)
    for name in ("polish", "polish_rate", "retraining"):
        none: Any = {name: 0.0}
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0.0"):
            unrolled_removal(learner, **none)
    with pytest.raises(ValueError, match="got 0 traces, expected 1"):
        unrolled_removal(learner).prepare(KEY, original, train)
    with pytest.raises(ValueError, match="got 1 traces, expected 0"):
        METHODS["ssd"].factory(learner).prepare(KEY, original, train, trace)
