import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.models import cnn, mlp
from unlearn_jax.models.model import Model
from unlearn_jax.train.ensemble import fit_ensemble
from unlearn_jax.train.entrance import check_batch, check_learnable, inside
from unlearn_jax.train.fit import fit, fit_watched
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import fit_trajectories, fit_trajectory
from unlearn_jax.types import Batch, Variables

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
LABELS = np.arange(4, dtype=np.int32) % 3


def nan_row(batch):
    inputs = batch.inputs.copy()
    inputs[5] = np.nan
    return batch._replace(inputs=inputs)


ENTRANCES = {
    "fit": fit,
    "fit_watched": lambda *a: fit_watched(*a, watch=lambda state: None),
    "fit_trajectory": lambda *a: fit_trajectory(*a, points=1),
    "fit_trajectories": lambda key, *a: fit_trajectories(key[None], *a, points=1),
    "fit_ensemble": lambda key, *a: fit_ensemble(key[None], *a),
}


@pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (nan_row, "training set: got NaN or infinite inputs in 1 rows.* row 5"),
        (lambda b: b._replace(targets=b.targets + 1), "first is 3 at example 2"),
        (lambda b: b._replace(targets=b.targets[1:]), "one leading axis of examples"),
        (lambda b: b._replace(weights=0 * b.weights), "every weight is 0"),
    ],
    ids=("nan", "label", "length", "nothing"),
)
def test_training_refuses_before_it_begins(entrance, spoil, sentence):
    with pytest.raises(ValueError, match=sentence):
        entrance(KEY, tiny.learner("softmax", epochs=1), spoil(tiny.examples()))


def test_an_ensemble_looks_at_the_rows_that_any_member_sees():
    learner, data = tiny.learner("softmax", epochs=1), nan_row(tiny.examples())
    keys = jax.random.split(KEY, 2)
    without = np.ones((2, tiny.COUNT))
    without[:, 5] = 0
    for members in ("loop", "vmap"):
        models = fit_ensemble(keys, learner, data, without, members=members)
        assert np.isfinite(models.params["kernel"]).all()
        one = without.copy()
        one[1, 5] = 1
        with pytest.raises(ValueError, match="the first is row 5"):
            fit_ensemble(keys, learner, data, one, members=members)
        with pytest.raises(ValueError, match="negative"):
            fit_ensemble(keys, learner, data, without - 1, members=members)


def test_boolean_weights_choose_rows_like_ones_and_zeros():
    learner, data = tiny.learner("softmax", epochs=1), tiny.examples()
    chosen = np.arange(tiny.COUNT) % 4 > 0
    some, same = (data._replace(weights=w) for w in (chosen, chosen.astype(float)))
    assert_trees_close(fit(KEY, learner, some), fit(KEY, learner, same), rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "inputs", "sentence"),
    [
        (cnn((8, 8, 1), 3, width=2), IMAGES.transpose(0, 3, 1, 2), "channels last"),
        (cnn((8, 8, 1), 3, width=2), (255 * IMAGES).astype(np.uint8), "raw uint8"),
        (mlp((8, 8, 1), 3), (255 * IMAGES).astype(np.int32), "raw int32 numbers"),
        (mlp((8, 8, 1), 3), IMAGES[:, :4], "the model cannot take inputs of shape"),
    ],
    ids=("channels", "bytes", "integers", "size"),
)
def test_images_that_a_model_was_not_built_for_are_told(model, inputs, sentence):
    data = tiny.from_arrays(inputs, LABELS)
    with pytest.raises(ValueError, match=sentence):
        check_learnable(Learner(model, cross_entropy), data, name="images")


def reading(apply):
    def init(key):
        kinds = {"table": jnp.ones((5, 4)), "head": jnp.ones((4, 3))}
        return Variables(kinds, {})

    def apply_train(key, variables, inputs):
        return apply(variables.params, inputs), variables

    return Model(init, lambda v, x: apply(v.params, x), apply_train, lambda v, x: x)


@pytest.mark.parametrize(
    "apply",
    [
        lambda p, x: jnp.mean(p["table"][x], 1) @ p["head"],
        lambda p, x: jnp.mean(jax.nn.one_hot(x, 5) @ p["table"], 1) @ p["head"],
        lambda p, x: (x / 255) @ p["table"] @ p["head"],
    ],
    ids=("looked up", "one-hot", "scaled by the model"),
)
def test_integers_that_a_model_can_take_are_no_images(apply):
    tokens = np.arange(20, dtype=np.int32).reshape(4, 5) % 5
    data = tiny.from_arrays(tokens, LABELS)
    check_learnable(Learner(reading(apply), cross_entropy), data, name="tokens")


def test_numbers_beside_words_may_meet_a_product_and_words_may_not():
    """A denoiser reads an image and the words of its caption."""

    def sound(p, x):
        told = p["table"][x["words"]].sum(-1)
        return (x["image"] + told) @ p["table"] @ p["head"]

    def raw(p, x):
        return (x["image"] @ p["table"] + x["words"] @ p["table"]) @ p["head"]

    words = np.arange(20, dtype=np.int32).reshape(4, 5) % 5
    inputs = {"image": np.ones((4, 5), np.float32), "words": words}
    data = Batch(inputs, LABELS, np.ones(4, np.float32))
    check_learnable(Learner(reading(sound), cross_entropy), data, name="denoised")
    with pytest.raises(ValueError, match="raw int32 numbers"):
        check_learnable(Learner(reading(raw), cross_entropy), data, name="denoised")


def test_a_predictor_alone_may_have_weights_below_zero():
    data = tiny.examples()
    params = {"k": np.ones((tiny.FEATURES, tiny.CLASSES))}

    def hold(loss, batch):
        check_batch(lambda p, x: x @ p["k"], params, loss, batch, name="queries")

    hold(cross_entropy, data._replace(weights=-data.weights))
    with pytest.raises(ValueError, match=r"queries: .* expected the model's outputs"):
        hold(squared_error, data)


def test_inside_and_under_jit_nothing_is_looked_at():
    learner, data = tiny.learner("softmax", epochs=1), nan_row(tiny.examples())
    with inside():
        check_learnable(learner, data, name="training set")
    found = jax.jit(lambda batch: fit(KEY, learner, batch))(data)
    assert np.isnan(found.params["kernel"]).all()
