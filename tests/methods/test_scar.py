"""SCAR: shapes of classes in numpy, one step, what stops it, and SCAR-self."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.methods import make_request
from unlearn_jax.methods.class_shapes import class_shapes, shape_distances, transformed
from unlearn_jax.methods.potion import label_agreement
from unlearn_jax.methods.scar import scar

KEY = jax.random.key(3)
COMMON = {"foreign": "marginals", "foreign_count": 32, "power": 1.0}


@pytest.fixture(scope="module")
def without_first(train):
    return make_request(train, np.flatnonzero(np.asarray(train.targets) == 0))


def shapes_by_hand(features, targets, shrinkage, rounds=2):
    means, inverses = [], []
    for label in range(tiny.CLASSES):
        own = features[targets == label]
        means.append(own.mean(0))
        s = np.cov(own.T)
        off = ~np.eye(len(s), dtype=bool)
        for _ in range(rounds):
            s = s + shrinkage * np.where(off, s[off].mean(), np.diag(s).mean())
        scale = np.sqrt(np.diag(s))
        inverses.append(np.linalg.pinv(s / np.outer(scale, scale)))
    return np.array(means), np.array(inverses)


def distances_by_hand(features, means, inverses):
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    m = means / np.linalg.norm(means, axis=1, keepdims=True)
    apart = z[:, None] - m[None]
    return np.einsum("nkf,kfg,nkg->nk", apart, inverses, apart)


def test_shapes_and_distances_are_those_of_numpy(train):
    random = np.random.default_rng(1)
    raw = random.gamma(2.0, size=(tiny.COUNT, 4)) * (1 + np.arange(4))

    @tiny.quick_jit
    def ours(raw, weights):
        features = transformed(raw, 0.5)
        shapes = class_shapes(features, weights, shrinkage=3.0)
        return shapes, shape_distances(features, shapes)

    targets = np.asarray(train.targets)
    weights = np.eye(tiny.CLASSES)[targets]
    shapes, found = ours(raw, weights)
    means, inverses = shapes_by_hand(np.sqrt(raw), targets, 3.0)
    np.testing.assert_allclose(shapes.means, means, rtol=1e-9)
    np.testing.assert_allclose(shapes.inverses, inverses, rtol=1e-6, atol=1e-9)
    expected = distances_by_hand(np.sqrt(raw), means, inverses)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_powers_are_flat_at_zero():
    rise = jax.grad(lambda x: jnp.sum(transformed(x, 0.5)))(jnp.array([0.0, 4.0]))
    np.testing.assert_allclose(rise, [0, 0.25])


def test_one_step_of_adam_has_the_signs_of_both_terms(without_first, original, train):
    learner, rate = tiny.learner("mlp"), 1e-4
    method = scar(
        learner,
        forget_weight=0.7,
        foreign_weight=1.3,
        goal=1.0,
        epochs=1,
        ratio=1,
        learning_rate=rate,
        batch_size=64,
        **COMMON,
    )
    known = tiny.quick_jit(method.prepare)(KEY, original, train)
    away = np.asarray(known.foreign)
    (layer,) = jax.tree.map(np.asarray, original.params)["hidden"].values()
    all_features = np.tanh(train.inputs @ layer["kernel"] + layer["bias"])
    means, inverses = shapes_by_hand(all_features, np.asarray(train.targets), 3.0)
    rows = np.asarray(without_first.forget.weights) > 0
    lost = np.asarray(without_first.forget.inputs)[rows]
    features = np.tanh(lost @ layer["kernel"] + layer["bias"])
    chosen = 1 + np.argmin(distances_by_hand(features, means, inverses)[:, 1:], axis=1)

    @tiny.quick_jit
    def slope(params):
        logits = learner.model.apply(original, away)
        taken = jnp.argmax(logits, axis=1) == 0
        target = jax.nn.softmax(logits.at[:, 0].set(jnp.min(logits)))

        def loss(params):
            at = original._replace(params=params)
            logp = jax.nn.log_softmax(learner.model.apply(at, away))
            kl = jnp.sum(target * (jnp.log(target) - logp), axis=1)
            held = jnp.sum(kl * ~taken) / jnp.sum(~taken)
            z = learner.model.features(at, lost)
            z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
            m = means / np.linalg.norm(means, axis=1, keepdims=True)
            apart = z - m[chosen]
            far = jnp.einsum("nf,nfg,ng->n", apart, inverses[chosen], apart)
            return 0.7 * jnp.mean(far) + 1.3 * held

        return jax.grad(loss)(params)

    expected = jax.tree.map(
        lambda p, g: p - rate * g / (jnp.abs(g) + 1e-8),
        original.params,
        slope(original.params),
    )
    moved, _ = tiny.quick_jit(method.forget)(KEY, known, original, without_first)
    # A gradient as small as Adam's 1e-8 shows the rounding of the inverses.
    assert_trees_close(moved.params, expected, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("variant", ["published", "self"])
def test_a_class_is_forgotten_and_the_rest_is_kept(
    variant, without_first, original, train
):
    learner = tiny.learner("mlp")
    options = {"learning_rate": 0.01, "batch_size": 64, "goal": 0.05, "epochs": 200}
    method = scar(learner, variant=variant, **options, **COMMON)
    known = tiny.quick_jit(method.prepare)(KEY, original, train)
    forget = tiny.quick_jit(method.forget)
    moved, _ = forget(KEY, known, original, without_first)

    @tiny.quick_jit
    def right(variables):
        return [label_agreement(learner, variables, part) for part in without_first]

    before, after = right(original), right(moved)
    assert before[0] > 0.8
    assert after[0] < (0.05 if variant == "published" else 0.5)
    assert after[1] > 0.7
    if variant == "self":  # what it forgets is not shown to it
        hidden = without_first.forget
        hidden = hidden._replace(inputs=0 * hidden.inputs + 7)
        blind, _ = forget(KEY, known, original, without_first._replace(forget=hidden))
        assert_trees_close(blind, moved, rtol=0)


def test_self_is_for_classes_and_needs_foreign_inputs_of_them(
    request_a, without_first, original, train
):
    learner = tiny.learner("mlp")
    method = scar(learner, variant="self", goal=0.5, **COMMON)
    known = method.prepare(KEY, original, train)
    features = np.asarray(learner.model.features(original, train.inputs))
    targets = np.asarray(train.targets)
    once = shapes_by_hand(features, targets, 3.0, rounds=1)[1]  # as released
    np.testing.assert_allclose(known.shapes.inverses, once, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="'self' forgets whole classes"):
        method.forget(KEY, known, original, request_a)
    one = np.asarray(train.inputs)[np.asarray(train.targets) == 1][:1]
    few = known._replace(foreign=jnp.repeat(one, 32, axis=0))
    with pytest.raises(ValueError, match="none of 32 foreign inputs is taken for"):
        method.forget(KEY, few, original, without_first)


def test_what_makes_no_sense_is_refused(original, train):
    learner = tiny.learner("mlp")
    with pytest.raises(ValueError, match=r"features to the power 0.5, and the least"):
        scar(learner, goal=0.5, foreign="marginals").prepare(KEY, original, train)
    with pytest.raises(ValueError, match="expected height, width and channels"):
        scar(learner, goal=0.5, power=1.0).prepare(KEY, original, train)
    with pytest.raises(ValueError, match="foreign 'pictures' is unknown"):
        scar(learner, foreign="pictures")
    with pytest.raises(ValueError, match="variant 'other' is unknown"):
        scar(learner, variant="other")
