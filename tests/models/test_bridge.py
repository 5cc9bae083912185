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
    """Keeps a random stream inside its dropout layer."""

    def __init__(self, rngs):
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, inputs, *, rngs=None):
        return self.head(self.drop(inputs))


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


@pytest.mark.parametrize(
    ("module", "leaf"), [(Stored, r"drop\.rngs"), (Counting, "calls")]
)
def test_other_state_is_refused_by_the_name_of_its_leaf(module, leaf):
    with pytest.raises(ValueError, match=rf"{leaf}.*; pass random streams at the call"):
        from_nnx(module)


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
