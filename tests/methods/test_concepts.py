"""Concepts of a class: their directions, their worth, and who is relabelled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.canvas import digit_canvas
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.methods import concepts as module
from unlearn_jax.methods.concepts import (
    ConceptBank,
    bank_of,
    class_concepts,
    concept_unlearning,
    scores_of,
)
from unlearn_jax.models import MODELS
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.recipe import Learner, Recipe

KEY = jax.random.key(3)
CLASSES = 3
OPTIONS = {"epochs": 2, "learning_rate": 0.01, "batch_size": 8}


def painted(seed, count):
    """Class in the first three features, style in the next two, and noise."""
    random = np.random.default_rng(seed)
    labels, styles = (
        random.integers(CLASSES, size=count),
        random.integers(2, size=count),
    )
    inputs = 0.3 * random.normal(size=(count, 7))
    inputs[np.arange(count), labels] += 2
    inputs[np.arange(count), CLASSES + styles] += 2
    return inputs.astype(np.float32), labels.astype(np.int32), styles


@pytest.fixture(scope="module")
def world():
    inputs, labels, _ = painted(0, 60)
    train = from_arrays(inputs, labels)
    recipe = Recipe(epochs=20, batch_size=16, learning_rate=0.1)
    learner = Learner(MODELS["linear"]((7,), CLASSES), cross_entropy, 0.0, recipe)
    original = tiny.quick_jit(lambda data: fit(KEY, learner, data))(train)
    shown, own, style = painted(1, 50)
    names = (("zero", "one", "two"), ("plain", "striped"))
    return train, learner, original, bank_of(shown, (own, style), names)


def scored(known, inputs):
    """A linear model's features are its inputs."""
    return scores_of(jnp.asarray(inputs), known.directions, known.centre)


@pytest.fixture(scope="module")
def known(world):
    train, learner, original, bank = world
    return concept_unlearning(learner, bank).prepare(KEY, original, train)


def test_a_direction_points_to_its_own_feature(known):
    near = np.abs(np.asarray(known.directions)).argmax(axis=1)
    np.testing.assert_array_equal(near[:CLASSES], range(CLASSES))
    assert set(near[CLASSES:]) <= {3, 4}
    lengths = np.linalg.norm(known.directions, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


@pytest.mark.parametrize("label", range(CLASSES))
def test_the_concept_of_a_class_is_worth_most_and_styles_little(world, known, label):
    train = world[0]
    lost = from_arrays(train.inputs, train.targets, (train.targets == label) * 1.0)
    scores = scored(known, train.inputs)
    worth = np.asarray(class_concepts(known, scores, lost))
    assert worth.argmax() == label
    assert worth[label] > 3 * np.abs(worth[CLASSES:]).max()


def test_worths_add_up_to_the_change_of_the_probability(world, known):
    train = world[0]
    scores = scored(known, train.inputs)
    whole = class_concepts(known, scores, train, path=400)

    def chance(rows):
        return np.asarray(
            jax.nn.softmax(rows @ known.kernel + known.bias[None], axis=1)
        )

    labels = np.asarray(train.targets)
    ends = chance(np.asarray(scores))[np.arange(60), labels]
    starts = chance(np.asarray(known.baseline)[None])[0, labels]
    assert float(whole.sum()) == pytest.approx(np.mean(ends - starts), abs=1e-4)


def test_with_all_of_them_it_is_amnesiac(world):
    train, learner, original, bank = world
    request = make_request(train, np.flatnonzero(np.asarray(train.targets) == 1))
    method = concept_unlearning(learner, bank, **OPTIONS)
    state = method.prepare(KEY, original, train)
    found = method.forget(KEY, state, original, request)[0]
    plain = METHODS["amnesiac"].factory(learner, **OPTIONS)
    assert_trees_close(found, plain.forget(KEY, (), original, request)[0])


def test_the_richest_are_relabelled_and_the_others_left_out(world, known, monkeypatch):
    train, learner, original, bank = world
    seen = []
    monkeypatch.setattr(
        module, "fit", lambda key, learner, data, start: seen.append(data) or start
    )
    chosen = np.flatnonzero(np.asarray(train.targets) == 1)
    request = make_request(train, chosen)
    method = concept_unlearning(learner, bank, share=0.25, **OPTIONS)
    method.forget(KEY, known, original, request)
    (data,) = seen
    weights = np.asarray(data.weights)[60:]
    scores = np.asarray(scored(known, train.inputs[chosen]))[:, 1]
    wanted = int(np.ceil(0.25 * len(chosen)))
    assert weights.sum() == wanted
    richest = set(np.argsort(-scores)[:wanted])
    assert set(np.flatnonzero(weights)) == richest
    assert (np.asarray(data.targets)[60:][weights > 0] != 1).all()
    np.testing.assert_array_equal(data.targets[:60], train.targets)


def test_a_bank_that_lacks_the_class_is_refused(world):
    train, learner, original, bank = world
    styles = ConceptBank(bank.inputs, bank.present[:, CLASSES:], bank.names[CLASSES:])
    method = concept_unlearning(learner, styles, damping=1e9, **OPTIONS)
    state = method.prepare(KEY, original, train)
    state = state._replace(kernel=jnp.zeros_like(state.kernel))
    request = make_request(train, np.flatnonzero(np.asarray(train.targets) == 1))
    with pytest.raises(ValueError, match="plain, striped speaks for the class to forg"):
        method.forget(KEY, state, original, request)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concepts": 6}, "got 6 of 5 concepts"),
        ({"share": 0.0}, "a share above 0, at most 1"),
        ({"damping": 0.0}, "damping must be positive"),
        ({"path": 0}, "path must be at least 1"),
    ],
)
def test_options_without_sense_are_refused(world, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        concept_unlearning(world[1], world[3], **options)


def test_a_concept_that_all_show_is_refused(world):
    bank = world[3]
    same = bank._replace(present=np.ones_like(bank.present))
    with pytest.raises(ValueError, match="concept 'zero' is in all images of the bank"):
        concept_unlearning(world[1], same)


def test_a_value_without_a_name_is_refused():
    with pytest.raises(ValueError, match="a label is 2 and 2 names are given"):
        bank_of(np.zeros((3, 2)), (np.arange(3),), (("a", "b"),))


@pytest.mark.slow
def test_of_digits_in_four_styles_the_digit_is_what_its_class_is_made_of():
    made = digit_canvas().dataset
    train = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2000]), made.splits.train)
    test = made.splits.test
    names = (tuple(map(str, range(10))), ("plain", "inverted", "striped", "shaded"))
    labels = (test.targets[:400], made.test_subclasses[:400])
    bank = bank_of(jnp.asarray(test.inputs[:400]), labels, names)
    recipe = Recipe(epochs=20, batch_size=64, learning_rate=0.1)
    learner = Learner(MODELS["mlp"]((8, 8, 1), 10), cross_entropy, 0.0, recipe)
    original = tiny.quick_jit(lambda data: fit(KEY, learner, data))(train)
    method = concept_unlearning(learner, bank, learning_rate=1e-3, epochs=10)
    state = method.prepare(KEY, original, train)
    chosen = np.flatnonzero(np.asarray(train.targets) == 3)
    threes = jax.tree.map(lambda leaf: leaf[chosen], train)
    features = learner.model.features(original, threes.inputs)
    scores = scores_of(features, state.directions, state.centre)
    worth = class_concepts(state, scores, threes)
    assert bank.names[int(jnp.argmax(worth))] == "3"
    left = method.forget(KEY, state, original, make_request(train, chosen))[0]

    def right(model, label):
        own = np.asarray(test.targets) == label
        return np.mean(learner.model.apply(model, test.inputs[own]).argmax(1) == label)

    assert right(original, 3) > 0.8
    assert right(left, 3) < 0.3
    assert right(left, 5) > 0.7
