import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from asserts import assert_trees_close

from unlearn_jax.train.loss import (
    cross_entropy,
    kl_divergence,
    sequence_nll,
    sequence_nll_sum,
    squared_error,
    squared_norm,
    target_kind,
)

RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(3 * RANDOM.standard_normal((5, 4)))
LABELS = jnp.array([0, 3, 1, 1, 2])


def test_cross_entropy_is_that_of_optax_and_scipy():
    got = cross_entropy(LOGITS, LABELS)
    outside = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
    assert_trees_close(got, outside, rtol=1e-12)
    by_hand = -scipy.special.log_softmax(np.asarray(LOGITS), axis=1)
    assert_trees_close(got, by_hand[np.arange(5), np.asarray(LABELS)], rtol=1e-12)


def test_cross_entropy_of_huge_logits_is_finite_and_exact():
    got = cross_entropy(jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1]))
    np.testing.assert_array_equal(got, [0.0, 1e4])


def test_cross_entropy_takes_labels_that_rest_in_numpy():
    got = cross_entropy(LOGITS, np.asarray(LABELS, np.int32))
    assert_trees_close(got, cross_entropy(LOGITS, LABELS), rtol=0)


def test_squared_error_is_half_the_squared_distance():
    outputs, targets = jnp.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 1], [0, 0]])
    np.testing.assert_array_equal(squared_error(outputs, targets), [2.5, 0.0])


def test_squared_norm_ignores_the_targets():
    outputs = jnp.array([[3.0, 4.0], [0.0, 1.0]])
    for targets in (jnp.array([0, 1]), jnp.full((2, 2), jnp.nan)):
        np.testing.assert_array_equal(squared_norm(outputs, targets), [25.0, 1.0])
    np.testing.assert_array_equal(squared_norm(outputs[None], jnp.zeros(1)), [26.0])


def test_sequence_nll_is_the_mean_over_tokens_that_are_not_negative():
    logits = jnp.asarray(RANDOM.standard_normal((2, 3, 4)))
    targets = jnp.array([[1, -1, 3], [0, 2, -100]])
    logp = scipy.special.log_softmax(np.asarray(logits), axis=-1)
    expected = [
        -(logp[0, 0, 1] + logp[0, 2, 3]) / 2,
        -(logp[1, 0, 0] + logp[1, 1, 2]) / 2,
    ]
    assert_trees_close(sequence_nll(logits, targets), np.array(expected), rtol=1e-12)
    whole = 2 * np.array(expected)  # both have two tokens
    assert_trees_close(sequence_nll_sum(logits, targets), whole, rtol=1e-12)
    moved = logits.at[0, 1].add(5.0).at[1, 2].set(jnp.array([9.0, 0, 0, 0]))
    assert_trees_close(sequence_nll(moved, targets), np.array(expected), rtol=1e-12)
    slope = jax.grad(lambda x: sequence_nll(x, targets).sum())(logits)
    assert not np.any(slope[0, 1])


def test_a_sequence_without_tokens_costs_nothing():
    np.testing.assert_array_equal(
        sequence_nll(jnp.ones((1, 2, 3)), jnp.full((1, 2), -1)), [0.0]
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence_is_zero_at_equality_and_positive_elsewhere(temperature):
    target = jax.nn.log_softmax(LOGITS / temperature)
    same = kl_divergence(LOGITS + 7.0, target, temperature=temperature)
    np.testing.assert_allclose(same, 0, atol=1e-14)
    other = kl_divergence(LOGITS[::-1], target, temperature=temperature)
    assert (np.delete(np.asarray(other), 2) > 0).all()  # row 2 is its own mirror


def test_kl_divergence_is_that_of_scipy_at_the_temperature():
    target = scipy.special.log_softmax(np.asarray(LOGITS[::-1]), axis=1)
    p, q = np.exp(target), scipy.special.softmax(np.asarray(LOGITS) / 2.0, axis=1)
    got = kl_divergence(LOGITS, jnp.asarray(target), temperature=2.0)
    assert_trees_close(got, scipy.special.rel_entr(p, q).sum(axis=1), atol=1e-14)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (cross_entropy, LOGITS, LABELS),
        (squared_error, LOGITS, LOGITS[::-1]),
        (squared_norm, LOGITS, LABELS),
        (sequence_nll, LOGITS[:, None], LABELS[:, None]),
        (sequence_nll_sum, LOGITS[:, None], LABELS[:, None]),
        (kl_divergence, LOGITS, jax.nn.log_softmax(LOGITS[::-1])),
    ],
)
def test_every_loss_gives_one_value_per_example_each_on_its_own(loss, outputs, targets):
    values = loss(outputs, targets)
    assert values.shape == (5,)
    alone = [loss(outputs[i : i + 1], targets[i : i + 1])[0] for i in range(5)]
    assert_trees_close(values, jnp.stack(alone), rtol=1e-12)


def test_divergence_counts_a_class_that_both_rule_out_as_nothing():
    """Against the divergence of the classes that are left, and its own derivative."""
    teacher = np.array([[1.0, 2.0, -np.inf], [0.0, 1.0, -np.inf]])
    student = jnp.array([[0.5, 2.0, -jnp.inf], [1.0, 0.0, -jnp.inf]])
    target = jax.nn.log_softmax(jnp.asarray(teacher))
    left = kl_divergence(student[:, :2], target[:, :2])
    assert_trees_close(kl_divergence(student, target), left, rtol=1e-12)
    p, q = (scipy.special.softmax(x[:, :2], axis=1) for x in (teacher, student))
    assert_trees_close(left, np.sum(p * np.log(p / q), axis=1), rtol=1e-12)
    slope = jax.grad(lambda s: jnp.sum(kl_divergence(s, target)))(student)
    assert_trees_close(slope[:, :2], q - p, rtol=1e-9)
    assert not slope[:, 2].any()


def test_divergence_from_a_class_that_only_the_student_rules_out_is_infinite():
    target = jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0]]))
    student = jnp.array([[0.0, -jnp.inf]] * 2)
    np.testing.assert_array_equal(kl_divergence(student, target), [np.inf, 0.0])


def test_divergence_of_a_target_that_is_not_a_number_is_none():
    assert np.isnan(kl_divergence(jnp.zeros((1, 2)), jnp.full((1, 2), jnp.nan))).all()


def test_every_loss_says_which_targets_it_takes():
    assert target_kind(cross_entropy) == "classes"
    assert target_kind(functools.partial(kl_divergence, temperature=2.0)) == (
        "log_probabilities"
    )
    assert target_kind(lambda outputs, targets: outputs[:, 0]) == "anything"
