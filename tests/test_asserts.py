import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close


def test_equal_trees_pass():
    tree = {"a": jnp.ones(3), "b": [jnp.zeros((2, 2), jnp.float32)]}
    assert_trees_close(tree, tree, rtol=0)


def test_rtol_is_honoured_on_both_sides():
    expected = np.array([100.0, -1.0])
    assert_trees_close(expected * (1 + 1e-3), expected, rtol=2e-3)
    with pytest.raises(AssertionError):
        assert_trees_close(expected * (1 + 1e-3), expected, rtol=5e-4)


def test_atol_is_honoured_on_both_sides():
    expected = np.zeros(2)
    assert_trees_close(expected + 1e-3, expected, atol=2e-3)
    with pytest.raises(AssertionError):
        assert_trees_close(expected + 1e-3, expected, atol=5e-4)
    with pytest.raises(AssertionError):
        assert_trees_close(expected + 1e-3, expected, rtol=1.0)


@pytest.mark.parametrize(
    ("dtype", "passes", "fails"),
    [
        (np.float64, 1e-11, 1e-9),
        (np.float32, 1e-3, 1e-2),
        (jnp.bfloat16, 2e-2, 2e-1),
        (np.float16, 1e-2, 1e-1),
    ],
)
def test_the_default_tolerance_follows_the_dtype(dtype, passes, fails):
    expected = jnp.ones(3, dtype)
    assert_trees_close((expected + passes).astype(dtype), expected)
    with pytest.raises(AssertionError):
        assert_trees_close((expected + fails).astype(dtype), expected)


def test_integers_must_be_equal():
    with pytest.raises(AssertionError):
        assert_trees_close(np.array([1000]), np.array([1001]))


def test_structure_shape_and_dtype_are_compared_and_the_leaf_is_named():
    with pytest.raises(AssertionError, match="structures differ"):
        assert_trees_close({"a": np.ones(2)}, {"b": np.ones(2)})
    with pytest.raises(AssertionError, match=r"\['a'\]: shape \(2,\), expected \(1,\)"):
        assert_trees_close({"a": np.ones(2)}, {"a": np.ones(1)})
    with pytest.raises(AssertionError, match="float32, expected float64"):
        assert_trees_close({"a": np.ones(2, np.float32)}, {"a": np.ones(2)})
    assert_trees_close(np.ones(2, np.float32), np.ones(2), dtypes=False)


def test_not_a_number_is_not_close_to_a_number():
    with pytest.raises(AssertionError):
        assert_trees_close(np.array([np.nan]), np.array([1.0]), rtol=1.0, atol=1e9)
