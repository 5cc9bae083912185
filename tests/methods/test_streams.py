"""Learners of streams: what they keep, and that each learns and forgets as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.batch import take
from unlearn_jax.methods.merging import fisher_merge
from unlearn_jax.methods.refresh_learning import importance, refreshed_fit
from unlearn_jax.methods.streams import (
    ewc_stream,
    merging_stream,
    refresh_stream,
    sequential_stream,
)
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind

KEYS = jax.random.split(jax.random.key(0), 3)
DATA = tiny.examples(np.float32)
OLD, NEW = take(DATA, range(6)), take(DATA, range(6, len(DATA.weights)))
LEARNER = tiny.learner(
    "mlp", jnp.float32, epochs=1, learning_rate=0.0625, batch_size=64, momentum=0.0
)
KINDS = {
    "sequential": sequential_stream,
    "ewc": ewc_stream,
    "merging": merging_stream,
    "refresh": refresh_stream,
}
OPTIONS = {"epochs": 2, "batch_size": 4}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def states(kind):
    """Nothing, the old rows, all of them, and without the old ones."""
    stream = KINDS[kind](LEARNER, **OPTIONS)
    learn, forget = (tiny.quick_jit(step) for step in (stream.learn, stream.forget))
    found = [stream.start(KEYS[0])]
    found.append(learn(KEYS[1], found[-1], OLD))
    found.append(learn(KEYS[2], found[-1], NEW))
    found.append(forget(KEYS[1], found[-1], OLD))
    return found


def test_squares_are_those_of_the_rows_within_each_when_it_was_learned(states):
    nothing, one, both, left = states
    assert [float(s.rows) for s in states] == [
        0,
        6,
        len(DATA.weights),
        NEW.weights.size,
    ]
    assert all(not leaf.any() for leaf in jax.tree.leaves(nothing.squares))
    sums = [
        tree.scale(float(rows.weights.size), importance(LEARNER, at.variables, rows))
        for at, rows in ((one, OLD), (both, NEW), (both, OLD))
    ]
    assert_trees_close(one.squares, sums[0], rtol=1e-4, atol=1e-7)
    assert_trees_close(both.squares, tree.add(*sums[:2]), rtol=1e-4, atol=1e-7)
    rest = tree.subtract(tree.add(*sums[:2]), sums[2])
    rest = jax.tree.map(lambda leaf: jnp.maximum(leaf, 0), rest)
    assert_trees_close(left.squares, rest, rtol=1e-3, atol=1e-5)


def test_what_comes_first_is_plain_training(states):
    plain = fit(KEYS[1], LEARNER, OLD, start=states[0].variables)
    assert_trees_close(states[1].variables, plain, rtol=1e-5, atol=1e-6)


def test_more_is_learned_as_published(kind, states):
    old = states[1]
    plain = fit(KEYS[2], LEARNER, NEW, start=old.variables)
    fisher = tree.scale(1 / 6, old.squares)
    if kind == "merging":
        pair = (fisher, importance(LEARNER, plain, NEW))
        floored = [jax.tree.map(lambda f: f + 1e-6, f) for f in pair]
        params = [old.variables.params, plain.params]
        expected = fisher_merge(params, floored, [6.0, float(NEW.weights.size)])
    elif kind == "refresh":
        moved = refreshed_fit(KEYS[2], LEARNER, NEW, start=old.variables, fisher=fisher)
        expected = moved.params
    else:  # one step: the gap is zero before it, so the spring does not pull yet
        expected = plain.params
    assert_trees_close(states[2].variables.params, expected, rtol=1e-4, atol=1e-6)


def test_a_spring_keeps_the_old_rows_better_than_none():
    contrary = OLD._replace(targets=(np.asarray(OLD.targets) + 1) % 3)
    slow = LEARNER._replace(
        recipe=tiny.learner("mlp", epochs=60, learning_rate=0.1, batch_size=64).recipe
    )

    def lost(strength):
        stream = ewc_stream(slow, strength=strength)
        state = stream.learn(KEYS[1], stream.start(KEYS[0]), OLD)
        further = tiny.quick_jit(stream.learn)(KEYS[2], state, contrary)
        return [
            float(bind(slow.model, {}, slow.loss).risk(at.variables.params, OLD))
            for at in (state, further)
        ]

    before, free = lost(0.0)
    _, held = lost(1e4)
    assert before < held < free


def test_forgetting_raises_the_loss_of_what_is_forgotten(states):
    objective = bind(LEARNER.model, {}, LEARNER.loss)
    before, after = (objective.risk(s.variables.params, OLD) for s in states[2:])
    assert after > before


@pytest.mark.parametrize("kind", KINDS)
def test_options_without_sense_are_refused(kind):
    bad = {
        "sequential": ({"epochs": 0}, "epochs must be at least 1"),
        "ewc": ({"strength": -1.0}, "strength must not be negative"),
        "merging": ({"floor": 0.0}, "floor must be positive"),
        "refresh": ({"damping": 0.0}, "expected both positive"),
    }
    options, sentence = bad[kind]
    with pytest.raises(ValueError, match=sentence):
        KINDS[kind](LEARNER, **options)
