import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from synthetic_outputs import model, scores

from unlearn_jax.evaluation.agreement import (
    average_gap,
    jensen_shannon,
    output_difference,
    prediction_agreement,
    relative_distance,
    total_variation,
    tug_of_war,
)
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs, probabilities


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    a = scores(rng, 40)
    return a, scores(rng, 40, targets=a.targets)


def test_prediction_agreement_counts_by_hand():
    a = Scores(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.zeros(3, int))
    b = Scores(np.array([[9.0, 0.0], [0.0, 3.0], [0.0, 1.0]]), np.zeros(3, int))
    assert prediction_agreement(a, b) == pytest.approx(200.0 / 3.0)


def test_jensen_shannon_equals_scipys_squared_distance(pair):
    p, q = (probabilities(s) for s in pair)
    want = np.mean(jensenshannon(p, q, axis=-1) ** 2)
    assert jensen_shannon(*pair) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("distance", [total_variation, jensen_shannon])
def test_distances_are_symmetric_zero_on_equals_and_bounded(pair, distance):
    a, b = pair
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
    assert distance(a, a) == 0.0
    sure = Scores(np.array([[1e4, 0.0]]), np.array([0]))
    other = Scores(np.array([[0.0, 1e4]]), np.array([0]))
    limit = {total_variation: 1.0, jensen_shannon: np.log(2.0)}[distance]
    assert distance(sure, other) == pytest.approx(limit, rel=1e-12)


def test_output_difference_is_the_root_mean_square():
    a, b = (
        Scores(np.zeros((2, 2)), np.zeros(2)),
        Scores(np.full((2, 2), 3.0), np.ones(2)),
    )
    assert output_difference(a, b) == pytest.approx(3.0)


def test_relative_distance_is_the_norm_of_the_change():
    a = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([0.0])}
    moved = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}
    assert relative_distance(moved, a) == pytest.approx(0.2)
    assert relative_distance(a, a) == 0.0
    zero = {"w": jnp.zeros(2), "b": jnp.zeros(1)}
    with pytest.raises(ValueError, match="all zero"):
        relative_distance(a, zero)
    with pytest.raises(ValueError, match="NaN or infinite"):
        relative_distance({"w": jnp.array([jnp.nan, 0.0]), "b": jnp.zeros(1)}, a)


def _with_accuracy(hits, n=10):
    targets = np.zeros(n, int)
    outputs = np.where(np.arange(n)[:, None] < hits, [[1.0, 0.0]], [[0.0, 1.0]])
    return Scores(outputs, targets)


def test_tug_of_war_is_the_product_of_three_closenesses():
    ours = SplitOutputs(*(_with_accuracy(h) for h in (9, 5, 8, 1)))
    oracle = SplitOutputs(*(_with_accuracy(h) for h in (10, 7, 8, 9)))
    assert tug_of_war(ours, oracle) == pytest.approx(0.9 * 0.8 * 1.0)
    assert tug_of_war(oracle, oracle) == 1.0


def test_tug_of_war_does_not_read_unseen():
    rng = np.random.default_rng(2)
    a, b = model(rng), model(rng, lead=3.0)
    assert tug_of_war(a, b) == tug_of_war(a._replace(unseen=b.unseen), b)


def test_average_gap_is_the_mean_absolute_difference():
    assert average_gap({"a": 10.0, "b": 0.0}, {"a": 6.0, "b": 2.0}) == 3.0
    with pytest.raises(ValueError, match="same numbers"):
        average_gap({"a": 1.0}, {"b": 1.0})
