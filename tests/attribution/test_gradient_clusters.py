import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.gradient_clusters import embeddings, gradient_features
from unlearn_jax.data.hard_sets import clustered_set
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def net():
    """Sketches in two widths, exact gradients, embeddings; one example holds NaN."""
    learner = tiny.learner("mlp")
    data = jax.tree.map(jnp.asarray, tiny.examples(count=20))
    data = data._replace(
        inputs=data.inputs.at[5].set(jnp.nan), weights=data.weights.at[5].set(0.0)
    )
    objective = bind(learner.model, {}, learner.loss)
    variables = learner.model.init(jax.random.key(1))

    @tiny.quick_jit
    def look(keys, variables, data):
        make = lambda key, width, size: gradient_features(  # noqa: E731  a shorthand
            key, objective, variables.params, data, width=width, batch_size=size
        )
        narrow = jax.lax.map(lambda key: make(key, 16, 20), keys)
        blocks = make(keys[0], 16, 6)
        features = embeddings(learner.model, variables, data, batch_size=6)
        return narrow, blocks, features

    found = look(jax.random.split(jax.random.key(0), 400), variables, data)

    @tiny.quick_jit
    def one_by_one(variables, data):
        def flat(x, y):
            slope = jax.grad(
                lambda p: objective.loss(objective.predict(p, x[None]), y[None])[0]
            )(variables.params)
            return jax.flatten_util.ravel_pytree(slope)[0]

        return jax.vmap(flat)(data.inputs, data.targets)

    exact = np.array(one_by_one(variables, data))
    exact[5] = 0
    return learner, variables, data, exact, jax.tree.map(np.asarray, found)


def test_inner_products_of_sketches_are_those_of_gradients(net):
    *_, exact, (narrow, _, _) = net
    grams = np.einsum("snr,smr->snm", narrow, narrow)
    error = grams.std(axis=0, ddof=1) / np.sqrt(len(grams))
    gap = np.abs(grams.mean(axis=0) - exact @ exact.T)
    assert (gap <= 4 * error + 1e-12).all()
    assert error.max() > 0


def test_blocks_do_not_change_a_sketch(net):
    *_, (narrow, blocks, _) = net
    np.testing.assert_allclose(blocks, narrow[0], atol=1e-12)


def test_an_example_without_weight_is_not_seen(net):
    *_, (narrow, _, features) = net
    assert (narrow[:, 5] == 0).all()
    assert (features[5] == 0).all()
    assert np.isfinite(narrow).all()
    assert np.isfinite(features).all()


def test_embeddings_are_the_input_of_the_last_map(net):
    learner, variables, data, _, (_, _, features) = net
    kept = np.arange(20) != 5
    expected = learner.model.features(variables, data.inputs[kept])
    np.testing.assert_allclose(features[kept], expected, atol=1e-12)


def test_clusters_of_wide_sketches_are_those_of_gradients(net):
    """All sketches side by side are one wide one: its directions are the exact ones."""
    *_, exact, (narrow, _, _) = net
    wide = np.concatenate(list(narrow), axis=1)
    found, expected = (clustered_set(f, 4, side="high") for f in (wide, exact))
    other = clustered_set(exact, 4, side="low")  # the sign of a direction is free
    assert max(len(set(found) & set(ends)) for ends in (expected, other)) >= 3


def test_a_width_of_nothing_is_refused(net):
    learner, variables, data, *_ = net
    objective = bind(learner.model, {}, learner.loss)
    with pytest.raises(ValueError, match="width is 0"):
        gradient_features(jax.random.key(0), objective, variables.params, data, width=0)
