"""Synaptic flow and its masks; pruning, rewinding and training before a request."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.trace import fit_traced
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.prune_rewind import prune_rewind
from unlearn_jax.methods.pruning import prune
from unlearn_jax.methods.rewinding import rounds_of, with_rewinding
from unlearn_jax.methods.synflow import synaptic_flow, synflow_mask
from unlearn_jax.models.model import Model
from unlearn_jax.train.fit import fit
from unlearn_jax.types import Variables

KEY = jax.random.key(3)
SIZES = (4, 6, 5, 3)


def rectified():
    """Three layers of rectified linear units without biases."""

    def apply(variables, inputs):
        values = inputs
        for name in sorted(variables.params):
            values = jax.nn.relu(values @ variables.params[name])
        return values

    return Model(lambda key: None, apply, None, None)


@pytest.fixture(scope="module")
def layers():
    random = np.random.default_rng(0)
    pairs = itertools.pairwise(SIZES)
    return {
        f"layer{i}": jnp.asarray(random.normal(size=pair))
        for i, pair in enumerate(pairs)
    }


def test_flow_is_the_sum_over_paths_and_the_same_in_every_layer(layers):
    inputs = np.zeros((2, SIZES[0]))
    flow = tiny.quick_jit(lambda v: synaptic_flow(rectified(), v, inputs))(
        Variables(layers, {})
    )
    a, b, c = (np.abs(layers[name]) for name in sorted(layers))
    whole = np.ones(SIZES[0]) @ a @ b @ c @ np.ones(SIZES[-1])
    for leaf in flow.values():
        np.testing.assert_allclose(np.sum(leaf), whole, rtol=1e-12)
    paths = np.einsum("ij,jk,kl->jk", a, b, c)  # through each weight in the middle
    np.testing.assert_allclose(flow["layer1"], paths, rtol=1e-12)


def test_masks_keep_so_many_weights_and_every_layer_alive(layers):
    inputs = np.zeros((2, SIZES[0]))
    sparsity, total = 0.9, tree.size(layers)

    @tiny.quick_jit
    def masked(variables):
        return synflow_mask(rectified(), variables, inputs, sparsity)

    mask = masked(Variables(layers, {}))
    assert sum(int(leaf.sum()) for leaf in mask.values()) == total - round(0.9 * total)
    left = Variables(tree.where(mask, layers, tree.zeros_like(layers)), {})
    flow = tiny.quick_jit(lambda v: synaptic_flow(rectified(), v, inputs))(left)
    assert all(float(jnp.sum(leaf)) > 0 for leaf in flow.values())
    # By magnitude alone the weights of this net leave no path from end to end.
    gone, _ = prune(layers, sparsity)
    bare = tiny.quick_jit(lambda v: synaptic_flow(rectified(), v, inputs))(
        Variables(gone, {})
    )
    assert tree.norm(bare) <= tree.norm(flow)


def test_rounds_remove_a_fifth_of_what_is_left():
    assert rounds_of(0.0) == (0.0,)
    np.testing.assert_allclose(rounds_of(0.2), [0.2])
    np.testing.assert_allclose(rounds_of(0.45), [0.2, 0.36, 0.45])
    assert len(rounds_of(0.95)) == 14


@pytest.fixture(scope="module")
def traced(train):
    learner = tiny.learner("mlp", epochs=4)
    run = tiny.quick_jit(
        lambda key, data: fit_traced(key, learner, data, points=2, held_out=data)
    )
    return learner, *run(KEY, train)


@pytest.mark.parametrize("pruning", ["magnitude", "iterative", "synflow"])
def test_the_sparse_model_is_rewound_and_trained_and_stays_sparse(
    pruning, traced, train, request_a
):
    learner, original, trace = traced
    options = {"epochs": 1, "learning_rate": 0.1, "batch_size": 8}
    method = prune_rewind(learner, pruning=pruning, sparsity=0.36, **options)
    prepare, forget = tiny.quick_jit(method.prepare), tiny.quick_jit(method.forget)
    state = prepare(KEY, original, train, trace)
    moved, _ = forget(KEY, state, original, request_a)
    sparse = state[0]
    flags = {}
    for name, model in (("before", sparse), ("after", moved)):
        kernels = [leaf for leaf in jax.tree.leaves(model.params) if leaf.ndim > 1]
        flags[name] = np.concatenate([np.ravel(leaf) == 0 for leaf in kernels])
        assert flags[name].sum() == round(0.36 * flags[name].size)
    np.testing.assert_array_equal(flags["before"], flags["after"])
    if pruning == "magnitude":
        # The same by a run whose model multiplies its kernels by the mask itself.
        _, mask = prune(original.params, 0.36)
        early = jax.tree.map(lambda leaf: leaf[0, 0], trace.points)

        def cut(variables):
            none = tree.zeros_like(variables.params)
            return variables._replace(params=tree.where(mask, variables.params, none))

        def train_cut(key, variables, inputs):
            return learner.model.apply_train(key, cut(variables), inputs)

        masked = learner._replace(model=learner.model._replace(apply_train=train_cut))
        run = tiny.quick_jit(lambda key, data: cut(fit(key, masked, data, start=early)))
        expected = run(jax.random.fold_in(KEY, 0), train)
        assert_trees_close(sparse, expected, rtol=1e-9, atol=1e-12)


def test_what_makes_no_sense_is_refused(traced):
    learner, *_ = traced
    with pytest.raises(ValueError, match="pruning 'random' is unknown; choose from"):
        prune_rewind(learner, pruning="random")
    with pytest.raises(ValueError, match="sparsity must be less than 1"):
        with_rewinding(finetune, learner, sparsity=1.0)
