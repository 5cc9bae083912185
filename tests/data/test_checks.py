import numpy as np
import pytest

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.checks import check


@pytest.fixture
def labelled():
    return from_arrays(np.zeros((4, 3), np.float32), [0, 1, 2, 1])


@pytest.fixture
def measured():
    return from_arrays(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32))


def _with(values, index, value):
    values = np.array(values)
    values[index] = value
    return values


def test_a_sound_batch_passes(labelled, measured):
    check(labelled, task="classification", classes=3, name="these")
    check(measured, task="regression", classes=2, name="these")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda b: {
                "inputs": _with(_with(b.inputs, (2, 1), np.nan), (3, 0), np.inf)
            },
            r"these: got 2 NaN or infinite values in the inputs, the first at index "
            r"\(2, 1\), expected finite",
        ),
        (
            lambda b: {"inputs": b.inputs.astype(np.uint8)},
            "got inputs of dtype uint8, expected floating point: convert",
        ),
        (
            lambda b: {"inputs": b.inputs[:, 0]},
            r"got inputs \(4,\).*expected inputs \(n, features...\).*reshape",
        ),
        (
            lambda b: {"weights": b.weights[:, None]},
            r"weights \(4, 1\), expected .* weights \(n,\)",
        ),
        (
            lambda b: {"targets": b.targets[:3]},
            r"targets \(3,\), weights \(4,\), expected the same number of examples",
        ),
        (
            lambda b: {k: v[:0] for k, v in b._asdict().items()},
            "got no example at all .*check what the examples were selected by",
        ),
        (
            lambda b: {"weights": b.weights * 0},
            "got no example at all, since every weight is 0",
        ),
        (
            lambda b: {"targets": b.targets.astype(np.int64)},
            r"got targets of dtype int64 and shape \(4,\), expected one int32 class",
        ),
        (
            lambda b: {"targets": np.eye(3, dtype=np.int32)[b.targets]},
            r"got targets of dtype int32 and shape \(4, 3\).*one-hot rows with argmax",
        ),
        (
            lambda b: {"targets": _with(b.targets, 1, 3)},
            "got 1 labels out of range, the first is 3 at example 1, expected 0 to 2",
        ),
        (
            lambda b: {"targets": _with(b.targets, 0, -1)},
            "the first is -1 at example 0",
        ),
        (
            lambda b: {"weights": _with(b.weights, 2, -0.5)},
            "got 1 weights that are negative or not finite, the first is -0.5 at "
            "example 2, expected 0 or more",
        ),
        (lambda b: {"weights": _with(b.weights, 3, np.nan)}, "the first is nan"),
        (
            lambda b: {"weights": b.weights.astype(np.int32)},
            "got weights of dtype int32, expected floating point",
        ),
    ],
)
def test_a_bad_classification_batch_is_one_sentence(labelled, change, sentence):
    bad = labelled._replace(**change(labelled))
    with pytest.raises(ValueError, match=sentence) as caught:
        check(bad, task="classification", classes=3, name="these")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda b: {"targets": b.targets[:, 0]},
            r"shape \(4,\), expected floating point of shape \(n, 2\) for regression",
        ),
        (lambda b: {"targets": b.targets[:, :1]}, r"expected .* shape \(n, 2\)"),
        (
            lambda b: {"targets": b.targets.astype(np.int32)},
            "got targets of dtype int32 .*expected floating point",
        ),
        (
            lambda b: {"targets": _with(b.targets, (1, 1), np.inf)},
            r"got 1 NaN or infinite values in the targets, the first at index \(1, 1\)",
        ),
    ],
)
def test_a_bad_regression_batch_is_one_sentence(measured, change, sentence):
    bad = measured._replace(**change(measured))
    with pytest.raises(ValueError, match=sentence):
        check(bad, task="regression", classes=2, name="these")


def test_an_unknown_task_is_named(labelled):
    with pytest.raises(ValueError, match="got task 'ranking', expected"):
        check(labelled, task="ranking", classes=3, name="these")
