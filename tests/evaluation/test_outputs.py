import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from synthetic_outputs import model, scores

from unlearn_jax.evaluation.outputs import (
    Scores,
    confidences,
    entropies,
    losses,
    margins,
    probabilities,
    select_members,
    split_outputs,
    stack_members,
)
from unlearn_jax.train.loss import cross_entropy, squared_error


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_losses_equal_the_training_losses(rng):
    s = scores(rng, 30)
    want = cross_entropy(jnp.asarray(s.outputs, float), jnp.asarray(s.targets))
    np.testing.assert_allclose(losses(s), want, rtol=1e-12)
    outputs, targets = rng.normal(size=(2, 20, 3))
    want = squared_error(jnp.asarray(outputs), jnp.asarray(targets))
    np.testing.assert_allclose(losses(Scores(outputs, targets)), want, rtol=1e-12)


def test_margin_is_the_log_odds_of_the_confidence(rng):
    s = scores(rng, 30)
    np.testing.assert_allclose(
        margins(s), scipy.special.logit(confidences(s)), rtol=1e-9, atol=1e-12
    )


def test_margin_does_not_saturate_where_the_confidence_does():
    s = Scores(np.array([[0.0, 60.0], [0.0, 80.0]]), np.array([1, 1]))
    np.testing.assert_array_equal(margins(s), [60.0, 80.0])


def test_entropy_equals_scipy_and_lies_between_zero_and_log_k(rng):
    s = scores(rng, 30)
    want = scipy.stats.entropy(probabilities(s), axis=-1)
    np.testing.assert_allclose(entropies(s), want, rtol=1e-10)
    extreme = Scores(np.array([[0.0, 0.0], [0.0, 1e6]]), np.array([0, 1]))
    np.testing.assert_allclose(entropies(extreme), [np.log(2.0), 0.0], atol=1e-15)


@pytest.mark.parametrize("function", [losses, margins, confidences, entropies])
def test_an_ensemble_is_its_members_one_by_one(rng, function):
    s = scores(rng, 12, members=3)
    one_by_one = [function(Scores(outputs, s.targets)) for outputs in s.outputs]
    np.testing.assert_array_equal(function(s), np.stack(one_by_one))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_device_arrays_of_any_precision_are_read_in_float64(rng, dtype):
    s = scores(rng, 5)
    device = Scores(jnp.asarray(s.outputs, dtype), jnp.asarray(s.targets))
    assert losses(device).dtype == np.float64
    np.testing.assert_allclose(losses(device), losses(s), rtol=5e-2, atol=5e-2)


def test_splits_partition_training_and_select_test(rng):
    train, tests = scores(rng, 10, members=2), scores(rng, 6, members=2)
    split = split_outputs(
        *train, *tests, forget=[7, 2], test=tests.targets != 1, unseen=[0, 3]
    )
    rest = [0, 1, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(split.forget.outputs, train.outputs[:, [2, 7]])
    np.testing.assert_array_equal(split.retain.outputs, train.outputs[:, rest])
    np.testing.assert_array_equal(split.retain.targets, train.targets[rest])
    np.testing.assert_array_equal(split.unseen.targets, tests.targets[[0, 3]])
    assert not np.any(split.test.targets == 1)


def test_a_mask_and_its_indices_give_the_same_splits(rng):
    train, tests = scores(rng, 10), scores(rng, 6)
    mask = np.arange(10) % 3 == 0
    a = split_outputs(*train, *tests, forget=mask)
    b = split_outputs(*train, *tests, forget=jnp.flatnonzero(mask))
    np.testing.assert_array_equal(a.forget.outputs, b.forget.outputs)
    np.testing.assert_array_equal(a.retain.targets, b.retain.targets)
    assert a.test.targets.shape == a.unseen.targets.shape == (6,)


def test_stacked_members_come_back_one_by_one(rng):
    first = model(rng)
    second = model(rng, like=first)
    stacked = stack_members([first, second])
    np.testing.assert_array_equal(
        select_members(stacked, 1).forget.outputs, second.forget.outputs
    )
    assert select_members(stacked, [0]).test.outputs.ndim == 3


def test_what_cannot_be_judged_is_refused_with_a_sentence(rng):
    train, tests = scores(rng, 10), scores(rng, 6)
    with pytest.raises(ValueError, match="forget split is empty"):
        split_outputs(*train, *tests, forget=[])
    with pytest.raises(ValueError, match="do not fit targets"):
        split_outputs(train.outputs, tests.targets, *tests, forget=[0])
    with pytest.raises(ValueError, match="1 of 4 outputs are NaN"):
        losses(Scores(np.array([[0.0, np.nan], [1.0, 2.0]]), np.array([0, 1])))
    with pytest.raises(ValueError, match="class indices from 0 to 4"):
        losses(Scores(np.zeros((2, 3)), np.array([0, 4])))
    with pytest.raises(ValueError, match="one target per output"):
        losses(Scores(np.zeros((2, 3)), np.zeros(2)))
    with pytest.raises(ValueError, match="class indices are needed"):
        confidences(Scores(np.zeros((2, 3)), np.zeros((2, 3))))
    with pytest.raises(ValueError, match="two classes or more"):
        margins(Scores(np.zeros((2, 1)), np.zeros(2, int)))
