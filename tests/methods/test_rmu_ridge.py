"""RMU in closed form: no slope is left at its kernel, and an editor finds the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequences
from tiny import quick_jit

from unlearn_jax.curvature.layer_inputs import layer_inputs
from unlearn_jax.data.tokens import IGNORED
from unlearn_jax.methods import make_request
from unlearn_jax.methods.editing.rows import edit_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.rmu_ridge import rmu_ridge
from unlearn_jax.models.stream import stream
from unlearn_jax.models.transformer import Shape
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables

SHAPE = Shape(sequences.WORDS, sequences.LENGTH, **sequences.SIZES)
LAYER = "blocks/0/down/kernel"
LENGTH, WEIGHT, DAMPING = 3.0, 0.5, 0.1


@pytest.fixture(scope="module")
def learner():
    features = stream(SHAPE, 0, dtype=jnp.float64)
    model = sequences.build()._replace(features=features)
    return Learner(model, sequence_nll)


@pytest.fixture(scope="module")
def data():
    rows = sequences.tokens(9, sequences.LENGTH + 1)
    targets = rows[:, 1:].copy()
    targets[::2, :3] = IGNORED
    return Batch(jnp.asarray(rows[:, :-1]), jnp.asarray(targets), jnp.ones(9))


def direction(key, width):
    drawn = jax.random.uniform(key, (width,), jnp.float64)
    return LENGTH * drawn / jnp.linalg.norm(drawn)


def means(learner, params, data, wanted):
    """Mean over examples of the mean over asked positions of squared distances."""
    hidden = learner.model.features(Variables(params, {}), data.inputs)
    square = jnp.sum(jnp.square(hidden - wanted), -1)
    kept = data.targets >= 0
    each = jnp.sum(jnp.where(kept, square, 0), 1) / kept.sum(1)
    return jnp.sum(data.weights * each) / jnp.sum(data.weights)


def test_the_kernel_is_where_the_slope_of_its_loss_vanishes(learner, data):
    variables, key = sequences.variables(), jax.random.key(5)
    request = make_request(data, [1, 4, 5])
    options = {"length": LENGTH, "retain_weight": WEIGHT, "damping": DAMPING}
    method = rmu_ridge(learner, layer=LAYER, batch_size=4, **options)
    moved, _ = quick_jit(method.forget)(key, (), variables, request)
    wanted = direction(key, SHAPE.width)[None, None]
    features = learner.model.features

    def loss(kernel, at, level):
        def put(kernel):
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: kernel if _name(path) == LAYER else leaf, at
            )

        params = put(kernel)
        before = features(variables, request.retain.inputs)
        own = means(learner, params, request.forget, wanted)
        held = means(learner, params, request.retain, before)
        start = variables.params["blocks"][0]["down"]["kernel"]
        return own + WEIGHT * held + level * jnp.sum(jnp.square(kernel - start))

    def gram(part):
        def predict(params, inputs):
            return features(Variables(params, {}), inputs)

        keys = layer_inputs(predict, variables.params, part.inputs, LAYER).keys
        kept = part.targets >= 0
        share = kept / kept.sum(1, keepdims=True) * part.weights[:, None]
        return jnp.einsum("nt,nti,ntj->ij", share, keys, keys) / part.weights.sum()

    def slopes(moved):
        total = gram(request.forget) + WEIGHT * gram(request.retain)
        level = DAMPING * jnp.trace(total) / len(total)
        start = variables.params["blocks"][0]["down"]["kernel"]
        found = moved.params["blocks"][0]["down"]["kernel"]
        slope = jax.grad(loss)
        return (
            slope(start, variables.params, level),
            slope(found, variables.params, level),
            loss(start, variables.params, level) - loss(found, variables.params, level),
        )

    first, last, gain = quick_jit(slopes)(moved)
    assert float(gain) > 0.1
    assert float(jnp.abs(last).max()) < 1e-11 * float(jnp.abs(first).max()) + 1e-12
    same = jax.tree.map(
        lambda a, b: bool(jnp.all(a == b)), moved.params, variables.params
    )
    assert [leaf for leaf in jax.tree.leaves(same)].count(False) == 1


def test_an_editor_of_keys_and_targets_finds_the_same(learner, data):
    variables, key = sequences.variables(), jax.random.key(6)
    data = data._replace(targets=jnp.abs(data.targets))
    request = make_request(data, [0, 7])
    options = {"length": LENGTH, "retain_weight": WEIGHT, "damping": DAMPING}
    method = rmu_ridge(learner, layer=LAYER, **options)
    wanted = direction(key, SHAPE.width)
    kernel = {"down": variables.params["blocks"][0]["down"]["kernel"]}

    def both():
        def read(part):
            def predict(params, inputs):
                return learner.model.features(Variables(params, {}), inputs)

            found = layer_inputs(predict, variables.params, part.inputs, LAYER)
            keys = found.keys.reshape(-1, found.keys.shape[-1])
            shares = part.weights / part.weights.sum() / part.inputs.shape[1]
            hidden = found.outputs.reshape(len(keys), -1)
            return keys, hidden, jnp.repeat(shares, part.inputs.shape[1])

        keys, hidden, shares = read(request.forget)
        targets = keys @ kernel["down"] + wanted[None] - hidden
        kept, _, held = read(request.retain)
        rows = join_rows(
            edit_rows(kernel, keys, targets, shares),
            preserve_rows(kernel, kept, WEIGHT * held),
        )
        gram = jnp.einsum("n,ni,nj->ij", shares, keys, keys)
        gram += WEIGHT * jnp.einsum("n,ni,nj->ij", held, kept, kept)
        level = DAMPING * jnp.trace(gram) / len(gram)
        return rows, level, method.forget(key, (), variables, request)[0]

    rows, level, moved = quick_jit(both)()
    expected = edit(kernel, rows, l2=float(level))["down"]
    found = moved.params["blocks"][0]["down"]["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_features_that_are_no_such_sum_are_told(learner, data):
    variables, request = sequences.variables(), make_request(data, [2])
    key = jax.random.key(0)
    normal = learner._replace(model=sequences.build())
    (moved, _) = quick_jit(rmu_ridge(normal, layer=LAYER).forget)(
        key, (), variables, request
    )
    assert np.isnan(moved.params["blocks"][0]["down"]["kernel"]).all()
    for layer, says in (("blocks/0/up/kernel", "wide"), ("up", "choose from")):
        with pytest.raises(ValueError, match=says):
            rmu_ridge(learner, layer=layer).forget(key, (), variables, request)


def test_a_stream_is_of_a_block_that_there_is():
    for shape, block in ((SHAPE, 2), (SHAPE._replace(scan=True), 0)):
        with pytest.raises(ValueError, match="blocks in a list"):
            stream(shape, block)


def _name(path):
    return "/".join(str(getattr(part, "key", part)) for part in path)
