"""Batches that an attribution cannot take are refused by its name, before it begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Evidence, Subsets, Trajectory
from unlearn_jax.attribution.data_diet import el2n, grand
from unlearn_jax.attribution.gradient_clusters import embeddings, gradient_features
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.models.model import Model
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Variables

KEY = jax.random.key(0)
COUNT = 6
UNREAD = Evidence(Variables({}, {}))
SIGNED = ("influence",)
"""Of sums over examples alone: negative weights have a meaning."""


def evidence(model):
    models, point, members = (
        jax.vmap(model.init)(jax.random.split(KEY, many)) for many in (2, 4, 3)
    )
    point = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), point)
    masks = np.random.default_rng(0).integers(0, 2, (3, COUNT)).astype(float)
    return Evidence(
        models,
        jax.random.split(KEY, 2),
        Trajectory(point, jnp.ones(2), jnp.ones(2)),
        Subsets(masks, members),
    )


def made(name, learner=None):
    options = {"source": {"segments": 2}, "trak": {"width": 8}}.get(name, {})
    learner = tiny.learner("softmax", epochs=1) if learner is None else learner
    return ATTRIBUTIONS[name].factory(learner, **options)


def nan_row(batch):
    inputs = batch.inputs.copy()
    inputs[4] = np.nan
    return batch._replace(inputs=inputs)


SPOILT = {
    "none": (lambda b: jax.tree.map(lambda leaf: leaf[:0], b), "no example at all"),
    "lengths": (lambda b: b._replace(targets=b.targets[1:]), "6 .* and 5 in the targ"),
    "weights": (lambda b: b._replace(weights=b.weights[:, None]), "one real number"),
    "features": (lambda b: b._replace(inputs=b.inputs[:, 1:]), "cannot take inputs"),
    "bytes": (lambda b: b._replace(inputs=b.inputs.astype("uint8")), "raw uint8"),
}
VALUES = {
    "nan": (nan_row, "NaN or infinite inputs in 1 rows, the first is row 4"),
    "labels": (lambda b: b._replace(targets=b.targets + 1), "labels out of range"),
}


@pytest.mark.parametrize("name", ATTRIBUTIONS)
@pytest.mark.parametrize("kind", [*SPOILT, *VALUES])
def test_training_sets_are_refused(name, kind):
    spoil, sentence = (SPOILT | VALUES)[kind]
    attribution, data = made(name), tiny.examples(count=COUNT)
    spoilt, told = spoil(data), rf"{name} \(training set\).*{sentence}"
    with pytest.raises(ValueError, match=told):
        attribution.prepare(KEY, UNREAD, spoilt)
    with pytest.raises(ValueError, match=told):
        attribution.effects(None, spoilt, data, component(1))
    with pytest.raises(ValueError, match=told):
        attribution.change(None, spoilt, data, np.zeros(COUNT))


@pytest.mark.parametrize("name", ATTRIBUTIONS)
@pytest.mark.parametrize("kind", [*SPOILT, "nan"])
def test_queries_and_changes_are_refused(name, kind):
    spoil, sentence = (SPOILT | VALUES)[kind]
    attribution, data = made(name), tiny.examples(count=COUNT)
    told = rf"{name} \(queries\).*{sentence}"
    with pytest.raises(ValueError, match=told):
        attribution.effects(None, data, spoil(data), component(1))
    with pytest.raises(ValueError, match=told):
        attribution.change(None, data, spoil(data), np.zeros(COUNT))
    with pytest.raises(ValueError, match=r"has shape \(5,\), expected \(6,\)"):
        attribution.change(None, data, data, np.zeros(COUNT - 1))
    with pytest.raises(ValueError, match=r"the loss returns \(2, 3\) for 2 examples"):
        attribution.effects(None, data, data, lambda outputs, _: outputs)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_shapes_are_told_under_jit_too(name):
    attribution, data = made(name), tiny.examples(count=COUNT)
    for spoil, sentence in SPOILT.values():
        with pytest.raises(ValueError, match=sentence):
            jax.eval_shape(lambda b: attribution.prepare(KEY, UNREAD, b), spoil(data))


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_outputs_whose_first_axis_is_time_are_named(name):
    plain = tiny.softmax()

    def apply(variables, inputs):
        return jnp.stack([plain.apply(variables, inputs)] * 4)

    model = Model(plain.init, apply, plain.apply_train, plain.features)
    learner = tiny.learner("softmax", epochs=1)._replace(model=model)
    with pytest.raises(ValueError, match=r"predict returns an array \(4, 3, 3\) for 3"):
        made(name, learner).prepare(KEY, UNREAD, tiny.examples(count=COUNT))


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_negative_training_weights_are_refused_where_they_have_no_meaning(name):
    attribution, data = made(name), tiny.examples(count=COUNT)
    data.weights[3] = -1.0
    known = evidence(tiny.softmax())
    if name in SIGNED:
        jax.eval_shape(lambda: attribution.prepare(KEY, known, data))
        return
    with pytest.raises(ValueError, match=r"weights that are negative .* example 3"):
        attribution.prepare(KEY, known, data)
    with pytest.raises(ValueError, match=rf"{name} \(training set\): got 1 weights"):
        attribution.effects(None, data, data, component(1))
    with pytest.raises(ValueError, match="negative or not finite, the first is -1"):
        attribution.change(None, data, data, data.weights)


def test_under_jit_they_come_out_as_nan_and_queries_keep_theirs():
    attribution, data = made("empirical_leave_one_out"), tiny.examples(count=COUNT)

    @tiny.quick_jit
    def run(known, train, queries):
        state = attribution.prepare(KEY, known, train)
        found = attribution.effects(state, train, queries, component(1))
        return found, attribution.change(state, train, queries, jnp.ones(COUNT))

    known = evidence(tiny.softmax())
    below = data._replace(weights=data.weights - 2.0 * (np.arange(COUNT) == 3))
    for found in run(known, below, data):
        assert np.isnan(found).all()
    for found, same in zip(
        run(known, data, below), run(known, data, data), strict=True
    ):
        assert np.any(found[3])
        np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_inputs_may_be_a_tree(name):
    plain = tiny.softmax()

    def whole(inputs):
        return jnp.concatenate([inputs["left"], inputs["right"]], axis=1)

    model = Model(
        plain.init,
        lambda variables, x: plain.apply(variables, whole(x)),
        lambda key, variables, x: plain.apply_train(key, variables, whole(x)),
        lambda variables, x: whole(x),
    )
    learner = tiny.learner("softmax", epochs=1)._replace(model=model)
    attribution, data = made(name, learner), tiny.examples(count=COUNT)
    left, right = data.inputs[:, :2], data.inputs[:, 2:]
    data = data._replace(inputs={"left": left, "right": right})

    def run(known, train):
        state = attribution.prepare(KEY, known, train)
        found = attribution.effects(state, train, train, component(1))
        return found, attribution.change(state, train, train, train.weights)

    shapes = [found.shape for found in jax.eval_shape(run, evidence(model), data)]
    assert shapes == [(COUNT, COUNT), (COUNT, tiny.CLASSES)]


def scorers():
    learner = tiny.learner("softmax")
    models = jax.vmap(learner.model.init)(jax.random.split(KEY, 2))
    one = learner.model.init(KEY)
    objective = bind(learner.model, {}, learner.loss)
    return {
        "grand": lambda b: grand(learner, models, b),
        "el2n": lambda b: el2n(learner, models, b),
        "gradient_features": lambda b: gradient_features(
            KEY, objective, one.params, b, width=4
        ),
        "embeddings": lambda b: embeddings(learner.model, one, b),
    }


@pytest.mark.parametrize("name", scorers())
@pytest.mark.parametrize("kind", ["none", "lengths", "weights"])
def test_scores_of_examples_begin_with_the_same_door(name, kind):
    spoil, sentence = SPOILT[kind]
    with pytest.raises(ValueError, match=f"{name}.*{sentence}"):
        scorers()[name](spoil(tiny.examples(count=COUNT)))


@pytest.mark.parametrize("name", scorers())
def test_a_score_of_an_example_reads_only_whether_it_is_there(name):
    data = tiny.examples(count=COUNT)
    score = tiny.quick_jit(scorers()[name])
    below = data._replace(weights=data.weights - 3.0 * (np.arange(COUNT) == 3))
    found = score(below)
    assert np.any(found[3])
    np.testing.assert_allclose(found, score(data), rtol=1e-12)
