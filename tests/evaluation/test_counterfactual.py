import numpy as np
import pytest

from unlearn_jax.evaluation.counterfactual import (
    compare,
    flips,
    predicted_changes,
    random_removals,
    top_supporters,
    weights_without,
)

COUNT, QUERIES, TOP = 40, 12, 6


@pytest.fixture(scope="module")
def ridge():
    """Ridge with a strong pull, retrained exactly, with a little noise of seeds."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(COUNT, 5))
    targets = inputs @ rng.normal(size=5) + rng.normal(size=COUNT)
    queries = rng.normal(size=(QUERIES, 5))
    pull = 30.0 * np.eye(5)

    def train(weights):
        gram = inputs.T @ (weights[:, None] * inputs) + pull
        return queries @ np.linalg.solve(gram, inputs.T @ (weights * targets))

    gram = inputs.T @ inputs + pull
    errors = targets - inputs @ np.linalg.solve(gram, inputs.T @ targets)
    effects = queries @ np.linalg.solve(gram, (inputs * errors[:, None]).T)
    return train, effects


def test_supporters_are_the_largest_effects_and_ties_keep_the_order():
    effects = np.array([[0.0, 3.0, -5.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    assert top_supporters(effects, 3).tolist() == [[1, 3, 4], [0, 1, 2]]
    weights = np.array([1.0, 0.0, 1.0, 1.0, 4.0])
    assert top_supporters(effects, 2, weights).tolist() == [[4, 3], [4, 0]]
    weak = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
    assert top_supporters(effects, 2, weak).tolist() == [[0, 2], [0, 2]]


def test_weights_and_predictions_are_those_of_taking_examples_out():
    rng = np.random.default_rng(1)
    effects, weights = rng.normal(size=(QUERIES, COUNT)), rng.uniform(0.5, 2, COUNT)
    chosen = top_supporters(effects, TOP, weights)
    rows = weights_without(chosen, weights)
    expected = np.einsum("qn,qn->q", effects, rows - weights)
    np.testing.assert_allclose(predicted_changes(effects, chosen, weights), expected)
    assert np.all(np.count_nonzero(rows, axis=1) == COUNT - TOP)
    assert np.all(weights > 0)


def test_random_removals_are_uniform_and_never_absent_examples():
    weights = np.ones(10)
    weights[3] = 0.0
    drawn = random_removals(3000, 4, weights, seed=2)
    assert all(len(set(row)) == 4 for row in drawn.tolist())
    shares = np.bincount(drawn.ravel(), minlength=10) / 3000
    assert shares[3] == 0
    np.testing.assert_allclose(np.delete(shares, 3), 4 / 9, atol=4 * 0.0091)
    np.testing.assert_array_equal(drawn, random_removals(3000, 4, weights, seed=2))


def test_taking_supporters_out_does_what_is_predicted_and_random_ones_do_less(ridge):
    train, effects = ridge
    rng = np.random.default_rng(3)
    ones = np.ones(COUNT)

    def noisy(outputs, models):
        return outputs + 0.01 * rng.normal(size=(models, QUERIES))

    before = noisy(train(ones), 8)

    def retrained(chosen):
        rows = weights_without(chosen, ones)
        own = np.array([train(row)[q] for q, row in enumerate(rows)])
        return compare(predicted_changes(effects, chosen), before, noisy(own, 6))

    top = retrained(top_supporters(effects, TOP))
    control = retrained(random_removals(QUERIES, TOP, ones, seed=4))
    assert top.sign_agreement == 100.0
    assert top.mean_shift < -4 * top.mean_stderr
    # to first order; the second is the removed share of the curvature
    np.testing.assert_allclose(top.mean_predicted, top.mean_shift, rtol=0.25)
    assert abs(control.mean_shift) < 0.3 * abs(top.mean_shift)
    # noise of 0.01 in means of 8 and 6 models
    expected = 0.01 * np.sqrt(1 / 8 + 1 / 6)
    np.testing.assert_allclose(np.sqrt(np.mean(top.stderr**2)), expected, rtol=0.3)


def test_signs_agree_half_of_the_time_where_nothing_moves_or_nothing_is_said():
    predicted = np.array([-1.0, -1.0, 0.0, 2.0])
    after = np.array([[-3.0, 4.0, 1.0, 0.0]])
    found = compare(predicted, np.zeros((1, 4)), after)
    # right, wrong, nothing said, nothing moved
    assert found.sign_agreement == 50.0
    assert np.isnan(found.stderr).all()
    np.testing.assert_array_equal(found.shift, after[0])


def test_only_labels_that_were_right_can_flip():
    before = np.array([[1, 1, 1, 0, 1], [1, 1, 0, 0, 1], [1, 0, 1, 0, 1]], bool)
    after = np.array([[0, 1, 0, 1, 1], [0, 1, 1, 1, 0]], bool)
    # right before: 0, 1, 2, 4; of these 0 is wrong after, and 2 and 4 are undecided
    found = flips(before, after)
    assert found.queries == 4
    assert found.share == 75.0
    np.testing.assert_allclose(found.stderr, 100 * np.sqrt(0.75 * 0.25 / 4))
    assert flips(before, before).share == 0.0


def test_what_makes_no_sense_is_refused():
    effects = np.zeros((2, 3))
    with pytest.raises(ValueError, match="k is 4; expected 1 to 3"):
        top_supporters(effects, 4)
    with pytest.raises(ValueError, match="k is 3; expected 1 to 2"):
        random_removals(2, 3, np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="weights have shape"):
        top_supporters(effects, 1, np.ones(4))
    with pytest.raises(ValueError, match="do not fit 2 predictions"):
        compare(np.zeros(2), np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        compare(np.zeros(2), np.zeros((3, 2)), np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="none can flip"):
        flips(np.zeros((1, 2), bool), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="do not fit"):
        flips(np.zeros((1, 2), bool), np.ones((1, 3), bool))
