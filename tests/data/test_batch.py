import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax.data.batch import (
    bucket,
    check,
    concatenate,
    from_arrays,
    pad,
    take,
)


@pytest.fixture
def batch():
    inputs = np.arange(12, dtype=np.float32).reshape(6, 2)
    return from_arrays(inputs, [0, 1, 2, 0, 1, 2], np.linspace(0, 1, 6))


def test_from_arrays_gives_int32_labels_and_weights_of_one_like_the_inputs():
    for dtype in (np.float32, np.float64):
        batch = from_arrays(np.zeros((3, 2), dtype), np.array([1, 2, 0]))
        assert batch.targets.dtype == np.int32
        assert batch.weights.dtype == dtype
        np.testing.assert_array_equal(batch.weights, np.ones(3))
    assert from_arrays(np.zeros((3, 2), np.uint8), [0, 1, 2]).weights.dtype == "float32"


def test_numpy_stays_numpy_and_jax_stays_jax():
    host = from_arrays(np.zeros((3, 2)), np.zeros((3, 1)))
    device = from_arrays(jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    for made, kind in ((host, np.ndarray), (device, jax.Array)):
        for one in (made, take(made, [2, 0]), pad(made, 4), concatenate(made, made)):
            assert all(isinstance(field, kind) for field in one)


def test_take_keeps_the_order_asked_for_and_the_weights(batch):
    taken = take(batch, [4, 1, 4])
    np.testing.assert_array_equal(taken.targets, [1, 1, 1])
    np.testing.assert_array_equal(taken.inputs, batch.inputs[[4, 1, 4]])
    np.testing.assert_array_equal(taken.weights, batch.weights[[4, 1, 4]])
    assert take(batch, []).inputs.shape == (0, 2)


def test_padding_adds_zeros_of_weight_zero_and_changes_no_weighted_sum(batch):
    padded = pad(batch, 8)
    assert padded.inputs.shape == (8, 2)
    for field in padded:
        np.testing.assert_array_equal(field[6:], np.zeros_like(field[6:]))
    np.testing.assert_array_equal(
        batch.weights @ batch.inputs, padded.weights @ padded.inputs
    )
    assert_trees_close(take(padded, range(6)), batch, rtol=0)
    assert_trees_close(pad(batch, 6), batch, rtol=0)


def test_padding_works_under_jit(batch):
    device = jax.tree.map(jnp.asarray, batch)
    assert_trees_close(jax.jit(lambda b: pad(b, 8))(device), pad(device, 8), rtol=0)


def test_buckets_are_powers_of_two_then_four_to_an_octave():
    sizes = [0, 1, 2, 3, 4, 5, 14, 16, 17, 64]
    assert [bucket(size) for size in sizes] == [1, 1, 2, 4, 4, 8, 16, 16, 32, 64]
    sizes = [65, 80, 81, 128, 129, 144, 1000, 1025]
    assert [bucket(size) for size in sizes] == [80, 80, 96, 128, 160, 160, 1024, 1280]
    all_sizes = range(65, 1000)
    assert all(size <= bucket(size) < 1.25 * size for size in all_sizes)
    assert len({bucket(size) for size in all_sizes}) == 16


def test_two_parts_concatenate_to_the_whole(batch):
    whole = concatenate(take(batch, [0, 1]), take(batch, [2, 3, 4, 5]))
    assert_trees_close(whole, batch, rtol=0)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda b: take(b, [0, 6]), "got index 6, expected indices from 0 to 5"),
        (lambda b: take(b, [-1]), "got index -1, expected indices from 0 to 5"),
        (lambda b: take(b, b.weights > 0), "got bool .*numpy.flatnonzero"),
        (lambda b: take(b, [[1]]), r"shape \(1, 1\), expected a list of integers"),
        (lambda b: pad(b, 5), "got size 5 for 6 examples, expected at least 6"),
        (lambda b: bucket(-1), "got size -1"),
        (
            lambda b: concatenate(b, b._replace(inputs=b.inputs[:, :1])),
            r"got inputs of shapes \[\(6, 2\)\] and \[\(6, 1\)\], expected the same",
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(batch, act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act(batch)


def test_check_is_at_hand_beside_the_batch(batch):
    check(batch, task="classification", classes=3, name="these")
