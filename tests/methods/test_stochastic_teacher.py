"""Two phases: whose outputs each imitates, on which examples, and with what loss."""

import sys

import jax
import numpy as np
import pytest
import tiny

from unlearn_jax.methods import make_request
from unlearn_jax.methods.bad_teacher import bad_teacher
from unlearn_jax.methods.stochastic_teacher import stochastic_teacher

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def stranger():
    return tiny.learner("mlp").model.init(jax.random.key(99))


@pytest.fixture(scope="module")
def learner(stranger):
    learner = tiny.learner("mlp")
    return learner._replace(model=learner.model._replace(init=lambda key: stranger))


@pytest.fixture
def phases(monkeypatch):
    """What each phase hands to the optimiser, which does nothing."""
    calls = []

    def catch(key, state, examples, weights, step_loss, recipe, *, loop):
        calls.append((examples, np.asarray(weights), step_loss))
        return state

    for name in ("stochastic_teacher", "bad_teacher"):
        module = sys.modules[f"unlearn_jax.methods.{name}"]
        monkeypatch.setattr(module, "optimise", catch)
    return calls


def logp(outputs, temperature):
    odds = np.asarray(outputs) / temperature
    return odds - np.log(np.exp(odds).sum(1, keepdims=True))


def test_a_stranger_erases_and_the_original_with_labels_rebuilds(
    phases, learner, stranger, original, request_a
):
    method = stochastic_teacher(learner, temperature=2.0, imitate=0.3)
    method.forget(KEY, (), original, request_a)
    apply = tiny.quick_jit(learner.model.apply)
    (erased, lost, erase), (rebuilt, kept, rebuild) = phases
    np.testing.assert_array_equal(erased[0], request_a.forget.inputs)
    np.testing.assert_array_equal(lost, request_a.forget.weights)
    expected = logp(apply(stranger, request_a.forget.inputs), 2.0)
    np.testing.assert_allclose(erased[1], expected, rtol=1e-9)
    np.testing.assert_array_equal(rebuilt[0], request_a.retain.inputs)
    np.testing.assert_array_equal(kept, request_a.retain.weights)
    own = logp(apply(original, request_a.retain.inputs), 2.0)
    np.testing.assert_allclose(rebuilt[1], own, rtol=1e-9)
    np.testing.assert_array_equal(rebuilt[2], request_a.retain.targets)

    # Both losses, at the stranger, in numpy.
    here = apply(stranger, request_a.retain.inputs)
    kl = (np.exp(own) * (own - logp(here, 2.0))).sum(1)
    labels = -logp(here, 1.0)[np.arange(tiny.COUNT), request_a.retain.targets]
    value, _ = tiny.quick_jit(rebuild)(KEY, stranger.params, {}, rebuilt, kept)
    mean = (kept * (0.3 * kl + labels)).sum() / kept.sum()
    assert float(value) == pytest.approx(mean, rel=1e-9)
    far = logp(apply(original, request_a.forget.inputs), 2.0)
    kl = (np.exp(expected) * (expected - far)).sum(1)
    value, _ = tiny.quick_jit(erase)(KEY, original.params, {}, erased, lost)
    assert float(value) == pytest.approx((lost * kl).sum() / lost.sum(), rel=1e-9)


def test_the_bad_teacher_can_keep_its_two_sets_apart(
    phases, learner, original, request_a
):
    for apart in (True, False):
        method = bad_teacher(learner, retain_share=0.5, two_phases=apart)
        method.forget(KEY, (), original, request_a)
    (first, *_), (second, *_), (mixed, *_) = phases
    np.testing.assert_array_equal(first[0], request_a.forget.inputs)
    for one, part, whole in zip(second, first, mixed, strict=True):
        np.testing.assert_array_equal(np.concatenate([one, part]), whole)


def test_what_was_erased_is_rebuilt_where_it_is_retained(learner, original, train):
    request = make_request(train, np.flatnonzero(np.asarray(train.targets) == 0))
    method = stochastic_teacher(learner, epochs=60, learning_rate=0.02, batch_size=64)
    moved = tiny.quick_jit(method.forget)(KEY, (), original, request)[0]

    @tiny.quick_jit
    def risks(variables):
        outputs = [learner.model.apply(variables, part.inputs) for part in request]
        return [
            (learner.loss(o, p.targets) * p.weights).sum() / p.weights.sum()
            for o, p in zip(outputs, request, strict=True)
        ]

    (lost, kept), (lost_before, kept_before) = risks(moved), risks(original)
    assert lost > lost_before + 1
    assert kept < kept_before + 0.1


@pytest.mark.parametrize("factory", [bad_teacher, stochastic_teacher])
def test_a_temperature_of_zero_is_refused(learner, factory):
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        factory(learner, temperature=0.0)
