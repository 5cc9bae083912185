"""Methods that make a model sparse: an l1 penalty, and pruning by magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.l1_sparse import l1_sparse
from unlearn_jax.methods.prune_finetune import prune_finetune
from unlearn_jax.methods.pruning import prune, with_pruning
from unlearn_jax.methods.random_labels import random_labels
from unlearn_jax.methods.source_removal import source_removal
from unlearn_jax.methods.ssd import ssd
from unlearn_jax.train.descent import begin, descend
from unlearn_jax.train.fit import training_loss
from unlearn_jax.train.objective import bind


@pytest.mark.parametrize("variant", ["published", "proximal"])
def test_full_steps_follow_the_penalty_as_it_falls(original, request_a, variant):
    rate, decay, alpha, momentum = 0.0625, 0.1, 0.3, 0.9
    learner = tiny.learner("mlp", weight_decay=decay, momentum=momentum)
    method = l1_sparse(
        learner,
        variant=variant,
        alpha=alpha,
        epochs=3,
        learning_rate=rate,
        batch_size=64,
    )
    moved = tiny.unlearned(method, original, request_a)
    slope = tiny.quick_jit(jax.grad(bind(learner.model, {}, learner.loss).risk))
    params, speed = original.params, tree.zeros_like(original.params)
    for strength in (alpha, alpha * 2 / 3, alpha / 3):
        step = tree.axpy(decay, params, slope(params, request_a.retain))
        if variant == "published":
            step = tree.axpy(strength, jax.tree.map(jnp.sign, params), step)
        speed = tree.axpy(momentum, speed, step)
        params = tree.axpy(-rate, speed, params)
        if variant == "proximal":
            reach = rate * strength / (1 - momentum)
            params = jax.tree.map(lambda p, by=reach: p - np.clip(p, -by, by), params)
    assert_trees_close(moved.params, params, rtol=1e-9, atol=1e-12)
    zeros = np.mean(tiny.flat(moved.params) == 0)
    assert 0.1 < zeros < 0.9 if variant == "proximal" else zeros == 0


def test_thresholds_with_momentum_rest_where_the_penalised_loss_is_least(train):
    strength, momentum = 0.1, 0.9
    learner = tiny.learner(
        "softmax",
        batch_size=64,
        learning_rate=0.0625,
        momentum=momentum,
        schedule="constant",
    )

    @tiny.quick_jit
    def settle(start):
        def one(_, state):
            return descend(
                jax.random.key(0),
                state,
                (train.inputs, train.targets),
                train.weights,
                training_loss(learner),
                learner.recipe,
                total_steps=1,
                shrink=0.0625 * strength / (1 - momentum),
            )

        return jax.lax.fori_loop(0, 600, one, begin(start, learner.recipe))

    params = settle(learner.model.init(jax.random.key(1))).variables.params
    slope = jax.grad(bind(learner.model, {}, learner.loss).risk)(params, train)
    weight, pull = tiny.flat(params), tiny.flat(slope)
    rests = weight == 0
    assert 0 < rests.sum() < weight.size
    assert np.all(np.abs(pull[rests]) <= strength)
    np.testing.assert_allclose(
        pull[~rests], -strength * np.sign(weight[~rests]), rtol=1e-6
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.95])
def test_the_smallest_weights_go_and_nothing_else(key, sparsity, axes):
    shapes = {"b": (7,), "c": (3, 3, 2), "k": (4, 5), "s": ()}
    like = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    params = tree.random_like(key, like, jax.random.normal)
    pruned, mask = prune(params, sparsity, axes=axes)
    ours = [np.ndim(leaf) >= axes for leaf in jax.tree.leaves(params)]
    kept = [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
    before, after = jax.tree.leaves(params), jax.tree.leaves(pruned)
    for leaf, old, new in zip(kept, before, after, strict=True):
        np.testing.assert_array_equal(new, np.where(leaf, old, 0))
    chosen = np.concatenate(
        [m.ravel() for m, own in zip(kept, ours, strict=True) if own]
    )
    sizes = np.concatenate(
        [np.abs(p).ravel() for p, own in zip(before, ours, strict=True) if own]
    )
    assert all(m.all() for m, own in zip(kept, ours, strict=True) if not own)
    assert (~chosen).sum() == round(sparsity * chosen.size)
    if sparsity:
        assert sizes[~chosen].max() < sizes[chosen].min()


def test_one_full_step_moves_what_is_left_alone(original, request_a):
    learner = tiny.learner("mlp", weight_decay=0.1)
    options = {"epochs": 1, "learning_rate": 0.25, "batch_size": 64}
    moved = tiny.unlearned(
        prune_finetune(learner, sparsity=0.5, **options), original, request_a
    )
    kernels = [p for p in jax.tree.leaves(original.params) if p.ndim == 2]
    middle = np.median(np.abs(tiny.flat(kernels)))  # of an even number of weights
    left = jax.tree.map(
        lambda p: jnp.where((jnp.abs(p) < middle) & (p.ndim == 2), 0, 1),
        original.params,
    )
    start = jax.tree.map(jnp.multiply, left, original.params)
    slope = jax.grad(bind(learner.model, {}, learner.loss).risk)
    step = tree.axpy(0.1, start, slope(start, request_a.retain))
    expected = jax.tree.map(lambda p, g, m: m * (p - 0.25 * g), start, step, left)
    assert_trees_close(moved.params, expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(tiny.flat(moved.params) == 0, tiny.flat(left) == 0)


def test_a_method_that_prepares_meets_the_pruned_model(original, request_a):
    learner = tiny.learner("mlp")
    pruned, mask = prune(original.params, 0.5)
    alone = tiny.unlearned(
        ssd(learner, alpha=1.0), original._replace(params=pruned), request_a
    )
    moved = tiny.unlearned(
        with_pruning(ssd, learner, sparsity=0.5, alpha=1.0), original, request_a
    )
    assert not np.array_equal(tiny.flat(alone.params), tiny.flat(pruned))
    expected = tree.where(mask, alone.params, tree.zeros_like(pruned))
    assert_trees_close(moved.params, expected, rtol=1e-12)


def test_what_is_pruned_stays_pruned_request_after_request(original, request_a):
    learner = tiny.learner("mlp", l2=0.1, momentum=0.9)
    options = {"epochs": 1, "learning_rate": 0.1, "batch_size": 8}
    method = with_pruning(random_labels, learner, sparsity=0.5, **options)
    forget = tiny.quick_jit(method.forget)
    key = jax.random.key(0)
    once, _ = forget(key, (), original, request_a)
    twice, _ = forget(key, (), once, request_a)
    gone = tiny.flat(prune(original.params, 0.5)[1]) == 0
    assert gone.any()
    for params in (once.params, twice.params):
        np.testing.assert_array_equal(tiny.flat(params) == 0, gone)


def _wrong(name, method, sentence, net="mlp", **options):
    recipe = {"optimizer": options.pop("optimizer", "sgd")}
    return pytest.param(method, net, recipe, options, sentence, id=name)


@pytest.mark.parametrize(
    ("method", "net", "recipe", "options", "sentence"),
    [
        _wrong("word", l1_sparse, "variant 'prox' is unknown; choose", variant="prox"),
        _wrong(
            "adam",
            l1_sparse,
            "needs a recipe of optimizer 'sgd'.*got 'adam'",
            variant="proximal",
            optimizer="adam",
        ),
        _wrong(
            "all", prune_finetune, "sparsity must be less than 1.*got 1", sparsity=1.0
        ),
    ],
)
def test_impossible_options_are_refused(method, net, recipe, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        method(tiny.learner(net, **recipe), **options)


def test_a_model_without_kernels_of_that_kind_is_refused(original):
    with pytest.raises(ValueError, match=r"no parameter has 4 axes.*the largest has 2"):
        prune(original.params, 0.5, axes=4)


def test_methods_that_read_a_trace_have_no_mask():
    with pytest.raises(ValueError, match="a mask was asked for a method that reads a"):
        with_pruning(source_removal, tiny.learner("mlp"))
