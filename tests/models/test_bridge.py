import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from flax import nnx
from problems import batch_norm_net, two_layer

from unlearn_jax import tree
from unlearn_jax.models import from_nnx
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.types import Variables

F64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}


class Stored(nnx.Module):
    """Keeps random streams inside its layers, and takes none at the call."""

    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(3, 64, **F64, rngs=rngs), rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(64, 2, **F64, rngs=rngs)

    def __call__(self, inputs):
        start = jnp.zeros((len(inputs), 64))
        hidden = self.rnn(inputs, initial_carry=start)[:, -1]
        return self.head(self.drops[1](self.drops[0](hidden)))


class Plain(Stored):
    """The same layers without randomness."""

    def __call__(self, inputs):
        start = jnp.zeros((len(inputs), 64))
        return self.head(self.rnn(inputs, initial_carry=start)[:, -1])


class Counting(nnx.Module):
    """Keeps state of a kind that nobody knows."""

    def __init__(self, rngs):
        self.head = nnx.Linear(2, 1, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, inputs, *, rngs=None):
        return self.head(inputs)


class Dropped(nnx.Module):
    """Takes its randomness at the call."""

    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.5)
        self.head = nnx.Linear(64, 2, **F64, rngs=rngs)

    def features(self, inputs, *, rngs=None):
        return self.drop(inputs, rngs=rngs)

    def __call__(self, inputs, *, rngs=None):
        return self.head(self.features(inputs, rngs=rngs))


@pytest.fixture(scope="module")
def normed():
    """(learner, data, variables with averages that have moved)."""
    learner, data = batch_norm_net()
    variables = jax.jit(learner.model.init)(jax.random.key(0))
    train = jax.jit(learner.model.apply_train)
    for i in range(3):
        _, variables = train(jax.random.key(i), variables, data.inputs)
    return learner, data, variables


def test_parameters_are_nested_dicts_by_attribute_name(normed):
    _, _, variables = normed
    assert jax.tree.map(jnp.shape, variables.params) == {
        "stem": {
            "conv": {"kernel": (3, 3, 1, 3)},
            "norm": {"scale": (3,), "bias": (3,)},
        },
        "head": {"kernel": (3, 3), "bias": (3,)},
    }
    assert jax.tree.map(jnp.shape, variables.stats) == {
        "stem": {"norm": {"mean": (3,), "var": (3,)}}
    }
    learner, _ = two_layer()
    layers = jax.eval_shape(learner.model.init, jax.random.key(0))
    assert set(layers.params) == {"hidden", "head"}
    assert set(layers.params["hidden"][0]) == {"kernel", "bias"}
    assert layers.stats == {}


def test_evaluation_is_deterministic_and_changes_nothing(normed):
    learner, data, variables = normed
    before = jax.tree.map(np.array, variables)
    apply = jax.jit(learner.model.apply)
    first, second = (apply(variables, data.inputs) for _ in range(2))
    assert_trees_close(first, second, rtol=0)
    assert_trees_close(variables, before, rtol=0)


def test_in_evaluation_examples_do_not_see_each_other(normed):
    learner, data, variables = normed
    apply = jax.jit(learner.model.apply)
    alone = [apply(variables, data.inputs[i : i + 1])[0] for i in range(3)]
    assert_trees_close(jnp.stack(alone), apply(variables, data.inputs)[:3], rtol=1e-12)


def test_training_moves_the_averages_and_nothing_else(normed):
    learner, data, _ = normed
    fresh = jax.jit(learner.model.init)(jax.random.key(0))
    _, moved = jax.jit(learner.model.apply_train)(jax.random.key(0), fresh, data.inputs)
    assert_trees_close(moved.params, fresh.params, rtol=0)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), moved.stats) == jax.tree.map(
        lambda a: (a.shape, a.dtype), fresh.stats
    )
    for leaf, old in zip(
        jax.tree.leaves(moved.stats), jax.tree.leaves(fresh.stats), strict=True
    ):
        assert (np.asarray(leaf) != np.asarray(old)).all()


def test_the_running_mean_moves_a_tenth_of_the_way():
    class Norm(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(2, momentum=0.9, rngs=rngs)

        def __call__(self, inputs, *, rngs=None):
            return self.norm(inputs)

    model = from_nnx(Norm)
    inputs = jnp.array([[1.0, 4.0], [3.0, 8.0]], jnp.float32)
    variables = model.init(jax.random.key(0))
    _, moved = model.apply_train(jax.random.key(0), variables, inputs)
    np.testing.assert_allclose(moved.stats["norm"]["mean"], [0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(moved.stats["norm"]["var"], [1.0, 1.3], rtol=1e-6)


def test_the_head_on_the_features_is_the_model(normed):
    learner, data, variables = normed
    for model, inputs, known in (
        (learner.model, data.inputs, variables),
        (two_layer()[0].model, two_layer()[1].inputs, None),
    ):
        known = model.init(jax.random.key(1)) if known is None else known
        head = known.params["head"]
        features = model.features(known, inputs)
        outputs = features @ head["kernel"] + head["bias"][None]
        assert_trees_close(outputs, model.apply(known, inputs), rtol=1e-12)


def gradients(learner, data, variables, *, train):
    """(batch gradient, sum of the gradients of single examples)."""

    def loss(params, inputs, targets):
        known = Variables(params, variables.stats)
        if train:
            outputs, _ = learner.model.apply_train(jax.random.key(0), known, inputs)
        else:
            outputs = learner.model.apply(known, inputs)
        return jnp.sum(cross_entropy(outputs, targets))

    @jax.jit
    def both(params, inputs, targets):
        whole = jax.grad(loss)(params, inputs, targets)
        single = jax.vmap(jax.grad(loss), (None, 0, 0))(
            params, inputs[:, None], targets[:, None]
        )
        return whole, jax.tree.map(lambda leaf: leaf.sum(axis=0), single)

    return both(variables.params, data.inputs, data.targets)


def test_gradients_of_single_examples_add_up_in_evaluation_but_not_in_training(normed):
    whole, summed = gradients(*normed, train=False)
    size = float(tree.norm(whole))
    assert float(tree.norm(tree.subtract(whole, summed))) < 1e-6 * size
    whole, summed = gradients(*normed, train=True)
    size = float(tree.norm(whole))
    assert 0.3 * size < float(tree.norm(tree.subtract(whole, summed))) < 30 * size


def test_other_state_is_refused_by_the_name_of_its_leaf():
    with pytest.raises(ValueError, match="random streams: calls; make what changes"):
        from_nnx(Counting)


def test_stored_streams_rest_in_evaluation_and_are_fed_from_the_key_in_training():
    model, plain = from_nnx(Stored), from_nnx(Plain)
    variables = model.init(jax.random.key(0))
    assert set(variables.params) == {"rnn", "head"}
    assert variables.stats == {}
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)))
    apply = jax.jit(model.apply)
    assert_trees_close(apply(variables, inputs), plain.apply(variables, inputs))
    assert_trees_close(apply(variables, inputs), apply(variables, inputs), rtol=0)
    train = jax.jit(model.apply_train)
    first, again, other = (
        train(jax.random.key(i), variables, inputs)[0] for i in (1, 1, 2)
    )
    assert_trees_close(first, again, rtol=0)
    assert (np.asarray(first) != other).all()
    raw, _ = model.apply_train(jax.random.PRNGKey(1), variables, inputs)
    assert_trees_close(raw, first, rtol=1e-9)
    # Two layers drop independently: a quarter passes, four times as large.
    keys = jax.random.split(jax.random.key(3), 400)
    drawn = np.asarray(jax.vmap(lambda k: train(k, variables, inputs)[0])(keys))
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(keys))
    expected = plain.apply(variables, inputs)
    assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * error)
    hidden = {"kernel": jnp.eye(64, 2), "bias": jnp.zeros(2)}
    marked = variables._replace(params={**variables.params, "head": hidden})
    dropped = jax.vmap(lambda k: train(k, marked, inputs)[0])(keys)
    share = np.mean(np.asarray(dropped) != 0)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / dropped.size)


def test_dropout_takes_its_key_at_the_call():
    model = from_nnx(Dropped)
    variables = model.init(jax.random.key(0))
    assert variables.stats == {}
    inputs = jnp.ones((3, 64))
    train = jax.jit(model.apply_train)
    first, again, other = (
        train(jax.random.key(i), variables, inputs) for i in (1, 1, 2)
    )
    assert_trees_close(first, again, rtol=0)
    assert (np.asarray(first[0]) != other[0]).all()
    assert_trees_close(first[1], variables, rtol=0)
    kept = model.apply(variables, inputs)
    assert_trees_close(kept, inputs @ variables.params["head"]["kernel"], rtol=1e-10)


def test_variables_may_rest_in_numpy():
    learner, data = two_layer()
    model = learner.model
    variables = model.init(jax.random.key(0))
    resting = jax.tree.map(np.asarray, (variables, data.inputs))
    assert_trees_close(model.apply(*resting), model.apply(variables, data.inputs))
    assert_trees_close(model.features(*resting), model.features(variables, data.inputs))
    outputs, _ = model.apply_train(jax.random.key(0), *resting)
    assert outputs.shape == (18, 3)


def test_a_model_runs_under_jit_vmap_and_grad_without_warnings(normed):
    learner, data, variables = normed
    stacked = tree.stack([variables, variables])
    outputs = jax.jit(jax.vmap(learner.model.apply, (0, None)))(stacked, data.inputs)
    assert outputs.shape == (2, 12, 3)
    assert_trees_close(outputs[0], outputs[1], rtol=0)
