import numpy as np
import pytest

from unlearn_jax.evaluation.accuracy import accuracy, mean_loss, rmse
from unlearn_jax.evaluation.outputs import Scores

OUTPUTS = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0], [0.0, 0.0]])


def test_accuracy_counts_by_hand_and_ties_go_to_the_first_class():
    assert accuracy(Scores(OUTPUTS, np.array([0, 1, 1, 0]))) == 75.0
    assert accuracy(Scores(OUTPUTS, np.array([0, 1, 1, 1]))) == 50.0


def test_mean_loss_of_even_outputs_is_log_k():
    assert mean_loss(Scores(np.zeros((3, 5)), np.arange(3))) == pytest.approx(np.log(5))


def test_rmse_counts_by_hand_with_flat_or_column_targets():
    outputs, targets = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 0.0, 0.0])
    want = np.sqrt(20.0 / 3.0)
    assert rmse(Scores(outputs, targets)) == pytest.approx(want, rel=1e-14)
    assert rmse(Scores(outputs, targets[:, None])) == pytest.approx(want, rel=1e-14)


def test_the_wrong_kind_of_targets_is_refused():
    with pytest.raises(ValueError, match="use rmse"):
        accuracy(Scores(OUTPUTS, np.zeros((4, 2))))
    with pytest.raises(ValueError, match="use accuracy"):
        rmse(Scores(OUTPUTS, np.zeros(4, int)))


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (np.array([1, 2, 3]), "1 labels out of range, the first is 3 at example 2"),
        (np.array([0, -1, 2]), "1 labels out of range, the first is -1 at example 1"),
        (np.eye(3, dtype=int), "turn one-hot rows into indices with argmax"),
        (np.array([0, 1]), "expected one class index for each example"),
    ],
)
def test_accuracy_of_labels_that_no_output_stands_for_is_refused(targets, sentence):
    with pytest.raises(ValueError, match=sentence):
        accuracy(Scores(np.eye(3), targets))
