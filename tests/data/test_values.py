import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.data.values import broken_rows, check_values
from unlearn_jax.types import Batch

N, K = 6, 3
X = np.arange(2.0 * N).reshape(N, 2)
Y = np.arange(N, dtype=np.int32) % K
W = np.ones(N)
TOKENS = np.tile(np.int32([1, 2]), (N, 1))
ABSENT = np.where(np.arange(N) == 4, 0.0, 1.0)


def spoilt(array, value, row=4):
    array = array.copy()
    array[row] = value
    return array


def check(inputs=X, targets=Y, weights=W, kind="classes", outputs=(K,), **settings):
    batch = Batch(inputs, targets, weights)
    check_values(batch, targets=kind, outputs=outputs, name="toy", **settings)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"targets": Y[:-1]}, r"inputs \(6, 2\), targets \(5,\), weights \(6,\)"),
        ({"inputs": X[:0], "targets": Y[:0], "weights": W[:0]}, "no example at all"),
        ({"weights": 0 * W}, "every weight is 0"),
        ({"weights": W[:, None]}, r"weights of shape \(6, 1\)"),
        ({"weights": spoilt(W, np.nan)}, "not finite, the first is nan at example 4"),
        ({"weights": -W}, "6 weights that are negative or not finite"),
        ({"inputs": spoilt(X, np.nan)}, "NaN or infinite inputs in 1 rows.* row 4"),
        ({"inputs": {"a": X, "b": spoilt(X, np.inf)}}, "inputs in 1 rows"),
        ({"targets": spoilt(Y, K)}, "first is 3 at example 4, expected 0 to 2"),
        ({"targets": spoilt(Y, -1)}, "first is -1 at example 4, expected 0 to 2"),
        ({"targets": np.eye(K)[Y]}, "one-hot rows with argmax"),
        ({"targets": np.eye(K, dtype=np.int32)[Y]}, "one-hot rows with argmax"),
        ({"targets": Y * 1.0}, "one class index for each example"),
        ({"targets": Y * 1.0, "kind": "numbers"}, "expected the model's outputs"),
        (
            {"targets": spoilt(np.eye(K)[Y], np.nan), "kind": "numbers"},
            "NaN or infinite targets in 1 rows, the first is row 4",
        ),
        (
            {"targets": np.full((N, 2), K), "kind": "tokens", "outputs": (2, K)},
            "12 labels out of range, the first is 3 at example 0, token 0",
        ),
        (
            {"targets": np.full((N, 4), 0), "kind": "tokens", "outputs": (2, K)},
            "expected a token for each position",
        ),
        (
            {"targets": spoilt(TOKENS, -1), "kind": "tokens", "outputs": (2, K)},
            "1 examples of which no token is asked for, the first is example 4",
        ),
        (
            {
                "inputs": spoilt(TOKENS, K),
                "targets": TOKENS,
                "kind": "tokens",
                "outputs": (2, K),
            },
            "2 tokens to read that the model does not know, the first is 3 at",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_told(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(**fields)


def test_rows_of_weight_zero_may_hold_anything():
    check(spoilt(X, np.nan), spoilt(Y, 99), ABSENT)
    check(spoilt(X, np.nan), spoilt(Y, -1), ABSENT.astype(bool))
    sequences = {"kind": "tokens", "outputs": (2, K), "weights": ABSENT}
    check(spoilt(TOKENS, K), TOKENS, **sequences)
    check(TOKENS, spoilt(TOKENS, -1), **sequences)
    regression = {"kind": "numbers", "weights": ABSENT}
    check(targets=spoilt(np.eye(K)[Y], np.nan), **regression)


def test_what_a_loss_takes_passes():
    halves = np.tile([-1, 0], (N, 1))
    check(targets=halves, kind="tokens", outputs=(2, K))
    check(inputs=halves, targets=halves, kind="tokens", outputs=(2, K))
    check(targets=np.full((N, K), -np.inf), kind="log_probabilities")
    check(targets=np.full(N, np.nan), kind="anything")
    check(weights=-W, negative=True)
    check(weights=0 * W, empty=True)
    check(inputs={"tokens": Y, "more": (X, X)})


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64, np.complex64])
@pytest.mark.parametrize("row", [0, 4])
def test_a_broken_row_is_found_in_blocks_of_any_size(monkeypatch, dtype, row):
    for size in (1, 64, 2**20):
        monkeypatch.setattr("unlearn_jax.data.values._BLOCK_BYTES", size)
        found = broken_rows(spoilt(X.astype(dtype), np.nan, row))
        np.testing.assert_array_equal(found, np.arange(N) == row)


def test_arrays_on_a_device_are_read_where_they_lie(monkeypatch):
    monkeypatch.setattr("unlearn_jax.data.values._on_host", lambda leaf: False)
    values = jnp.asarray(spoilt(X, -np.inf))
    np.testing.assert_array_equal(broken_rows(values), np.arange(N) == 4)
    assert not broken_rows(values, infinite=True).any()
    inside = jax.jit(lambda: jnp.sum(jnp.asarray(broken_rows(values))))
    assert inside() == 1
