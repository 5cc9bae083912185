"""Where K-FAC is exact, which labels it takes, and what does not change it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from layer_kinds import draw

from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import dense
from unlearn_jax.train.loss import cross_entropy, sequence_nll, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

COUNT, POSITIONS, WIDTHS = 4, 3, (3, 4, 2)
WEIGHTS = jnp.array([1.0, 0.5, 2.0, 0.3])
PARAMS = {"v": draw(1, *WIDTHS[1:]), "w": draw(0, *WIDTHS[:2])}
INPUTS = draw(2, COUNT, POSITIONS, WIDTHS[0])
LABELS = jnp.arange(COUNT, dtype=jnp.int32) % WIDTHS[2]


def deep_linear(params, inputs):
    return inputs @ params["w"] @ params["v"]


def curved(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"]


def summed_error(outputs, targets):
    return 0.5 * jnp.sum(jnp.square(outputs - targets), axis=(1, 2))


def blocks_of(matrix):
    """The diagonal blocks of the two parameters, the rest zero."""
    cut = PARAMS["v"].size
    return np.asarray(matrix) * np.equal.outer(*[np.arange(len(matrix)) < cut] * 2)


SETTINGS = {
    "positions with a loss each": (
        Objective(deep_linear, summed_error),
        "expand",
        draw(3, COUNT, POSITIONS, WIDTHS[2]),
    ),
    "the mean over positions": (
        Objective(lambda p, x: deep_linear(p, jnp.mean(x, axis=1)), squared_error),
        "reduce",
        draw(3, COUNT, WIDTHS[2]),
    ),
    "the mean of the outputs": (
        Objective(lambda p, x: jnp.mean(deep_linear(p, x), axis=1), squared_error),
        "reduce",
        draw(3, COUNT, WIDTHS[2]),
    ),
}


def _both(objective, data, shared):
    @tiny.quick_jit
    def run(params, data):
        state = kfac(None, objective, params, data, labels="exact", shared=shared)
        true = dense(gauss_newton(objective, params, data))
        return dense(kronecker_operator(state, params)), true

    return run(PARAMS, data)


@pytest.mark.parametrize("name", SETTINGS)
def test_deep_linear_nets_with_squared_error_have_kronecker_blocks(name):
    objective, shared, targets = SETTINGS[name]
    data = Batch(INPUTS, targets, WEIGHTS)
    found, true = _both(objective, data, shared)
    np.testing.assert_allclose(found, blocks_of(true), rtol=1e-9, atol=1e-11)


def test_the_other_setting_would_not_be_exact():
    objective, _, targets = SETTINGS["the mean of the outputs"]
    data = Batch(INPUTS, targets, WEIGHTS)
    found, true = _both(objective, data, "expand")
    true = blocks_of(true)
    assert np.linalg.norm(found - true) > 0.1 * np.linalg.norm(true)


FLAT = Batch(INPUTS[:, 0], LABELS, WEIGHTS)
CLASSIFIER = Objective(curved, cross_entropy, 0.3)


def test_one_example_with_its_own_label_is_exact():
    one = jax.tree.map(lambda leaf: leaf[1:2], FLAT)

    @tiny.quick_jit
    def both(params, batch):
        state = kfac(None, CLASSIFIER, params, batch)
        slope = jax.grad(CLASSIFIER._replace(l2=0.0).risk)(params, batch)
        return dense(kronecker_operator(state, params)), slope

    found, slope = both(PARAMS, one)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slope)])
    np.testing.assert_allclose(found, blocks_of(np.outer(flat, flat)), rtol=1e-10)


def test_factors_of_a_net_by_hand():
    blocks = factors_of(None, FLAT)
    hidden = np.tanh(np.asarray(FLAT.inputs) @ np.asarray(PARAMS["w"]))
    logits = hidden @ np.asarray(PARAMS["v"])
    slopes = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slopes -= np.eye(2)[np.asarray(LABELS)]
    below = slopes @ np.asarray(PARAMS["v"]).T * (1 - hidden**2)
    share = np.asarray(WEIGHTS / WEIGHTS.sum())
    for block, a, s in zip(blocks, (hidden, FLAT.inputs), (slopes, below), strict=True):
        for factor, values in zip(block, (np.asarray(a), s), strict=True):
            expected = (share[:, None] * values).T @ values
            np.testing.assert_allclose(factor[0], expected, rtol=1e-10)


def test_exact_labels_are_the_expectation_over_classes():
    def under(label):
        labels = jnp.full((COUNT,), label, jnp.int32)
        p = jax.nn.softmax(curved(PARAMS, FLAT.inputs))[:, label]
        data = Batch(FLAT.inputs, labels, WEIGHTS * p)
        share = jnp.sum(data.weights) / jnp.sum(WEIGHTS)
        return [share * block.slopes for block in factors_of(None, data)]

    found = [b.slopes for b in factors_of(None, FLAT, labels="exact")]
    expected = [sum(pair) for pair in zip(*map(under, (0, 1)), strict=True)]
    assert_trees_close(found, expected, rtol=1e-9, atol=1e-13)


def factors_of(key, data, objective=CLASSIFIER, **options) -> Any:
    def fit(key, params, data):
        return kfac(key, objective, params, data, **options).blocks

    return tiny.quick_jit(fit)(key, PARAMS, data)


REGRESSION = FLAT._replace(targets=draw(3, COUNT, WIDTHS[2]))
DRAWN = {
    "classes": (CLASSIFIER, FLAT),
    "gaussian": (Objective(curved, squared_error), REGRESSION),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_labels_have_the_exact_expectation(name, key):
    objective, data = DRAWN[name]

    @tiny.quick_jit
    def estimate(keys, data):
        def one(own):
            state: Any = kfac(own, objective, PARAMS, data, labels="sampled")
            return jnp.concatenate([block.slopes.ravel() for block in state.blocks])

        return jax.lax.map(one, keys)

    drawn = np.asarray(estimate(jax.random.split(key, 300), data))
    exact = factors_of(None, data, objective, labels="exact")
    exact = np.concatenate([np.ravel(block.slopes) for block in exact])
    error = np.abs(drawn.mean(0) - exact)
    assert np.all(error < 4 * drawn.std(0, ddof=1) / np.sqrt(len(drawn)))


def test_draws_belong_to_examples_not_to_blocks(key):
    options = {"labels": "sampled", "samples": 2}

    @tiny.quick_jit
    def runs(key, params, data):
        return [
            kfac(key, CLASSIFIER, params, data, batch_size=size, **options).blocks
            for size in (3, COUNT)
        ]

    assert_trees_close(*runs(key, PARAMS, FLAT), rtol=1e-9)


def test_ignored_tokens_draw_no_labels(key):
    targets = jnp.array([[0, 1, -1], [1, -1, -1], [0, 0, 1], [-1, -1, -1]])
    objective = Objective(curved, sequence_nll)
    full = Batch(INPUTS, targets, WEIGHTS)
    alone = full._replace(weights=WEIGHTS.at[:3].set(0))
    options = {"labels": "sampled", "samples": 2}
    silent = factors_of(key, alone, objective, **options)
    assert not any(np.any(block.slopes) for block in silent)
    spoken = factors_of(key, full, objective, **options)
    assert all(np.any(block.slopes) for block in spoken)


def test_states_cross_jit_and_map_over_parameters():
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), PARAMS)
    fit = tiny.quick_jit(jax.vmap(lambda p: ekfac(None, CLASSIFIER, p, FLAT)))
    solve = tiny.quick_jit(
        jax.vmap(lambda state, v: kronecker_inverse(state, damping=0.1)(v))
    )
    found = jax.tree.map(lambda leaf: leaf[1], solve(fit(many), many))
    second = jax.tree.map(lambda leaf: 2 * leaf, PARAMS)
    expected = tiny.quick_jit(
        lambda p, d: kronecker_inverse(ekfac(None, CLASSIFIER, p, d), damping=0.1)(p)
    )(second, FLAT)
    assert_trees_close(found, expected, rtol=1e-8)


def test_half_precision_is_summed_in_single():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    data = FLAT._replace(
        inputs=FLAT.inputs.astype(jnp.bfloat16), weights=WEIGHTS.astype(jnp.float32)
    )
    state = jax.eval_shape(lambda p, d: ekfac(None, CLASSIFIER, p, d), half, data)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    found = jax.eval_shape(
        lambda state, v: kronecker_inverse(state, damping=0.1)(v), state, half
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}


def test_no_weight_gives_the_zero_matrix_and_a_finite_inverse():
    none = FLAT._replace(weights=jnp.zeros(COUNT))

    @tiny.quick_jit
    def solved(params, data):
        state = kfac(None, CLASSIFIER, params, data)
        return [
            kronecker_inverse(state, damping=0.5, split=split)(params)
            for split in ("exact", "factored")
        ]

    expected = jax.tree.map(lambda leaf: 2 * leaf, PARAMS)
    for found in solved(PARAMS, none):
        assert_trees_close(found, expected, rtol=1e-10)


def test_what_cannot_be_is_refused(key):
    wrong = [
        ({"labels": "typical"}, "labels='typical'", None),
        ({"labels": "sampled"}, "no key", None),
        ({"labels": "sampled", "samples": 0}, "samples=0", key),
        ({"shared": "neither"}, "shared='neither'", None),
    ]
    for options, match, own in wrong:
        with pytest.raises(ValueError, match=match):
            kfac(own, CLASSIFIER, PARAMS, FLAT, **options)
    with pytest.raises(ValueError, match="class index"):
        kfac(key, CLASSIFIER, PARAMS, REGRESSION, labels="sampled")
    state = jax.eval_shape(lambda p: kfac(None, CLASSIFIER, p, FLAT), PARAMS)
    with pytest.raises(ValueError, match="like the parameters"):
        jax.eval_shape(
            lambda s, v: kronecker_inverse(s, damping=1.0)(v), state, {"w": 1.0}
        )
