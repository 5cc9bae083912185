from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax import tree


@pytest.fixture(autouse=True)
def no_silent_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


def make(seed, dtype=np.float64):
    random = np.random.default_rng(seed)
    return {
        "dense": {"kernel": jnp.asarray(random.standard_normal((3, 2)), dtype)},
        "blocks": [jnp.asarray(random.standard_normal(4), dtype), jnp.ones((), dtype)],
    }


def flat(a):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(a)])


def test_dot_and_norm_are_those_of_the_flattened_vectors():
    a, b = make(0), make(1)
    np.testing.assert_allclose(tree.dot(a, b), flat(a) @ flat(b), rtol=1e-14)
    np.testing.assert_allclose(tree.norm(a), np.linalg.norm(flat(a)), rtol=1e-14)


def test_dot_is_symmetric_and_linear():
    a, b, c = make(0), make(1), make(2)
    np.testing.assert_allclose(tree.dot(a, b), tree.dot(b, a), rtol=1e-14)
    np.testing.assert_allclose(
        tree.dot(tree.axpy(2.5, a, b), c),
        2.5 * tree.dot(a, c) + tree.dot(b, c),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("dtype", "summed"),
    [("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")],
)
def test_dot_sums_in_the_dtype_of_the_leaves_but_at_least_float32(dtype, summed):
    ones = {"a": jnp.ones(257, dtype), "b": jnp.ones(1, dtype)}
    assert tree.dot(ones, ones).dtype == summed
    assert float(tree.dot(ones, ones)) == 258.0


def test_the_norm_of_nothing_is_zero():
    assert float(tree.norm({})) == 0.0
    assert tree.size({}) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_vector_algebra_is_leafwise_and_keeps_dtypes(dtype):
    a, b = make(0, dtype), make(1, dtype)
    for got, want in (
        (tree.add(a, b), flat(a) + flat(b)),
        (tree.subtract(a, b), flat(a) - flat(b)),
        (tree.scale(2.0, a), 2 * flat(a)),
        (tree.axpy(2.0, a, b), 2 * flat(a) + flat(b)),
        (tree.zeros_like(a), 0 * flat(a)),
    ):
        assert jax.tree.structure(got) == jax.tree.structure(a)
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(dtype)}
        assert_trees_close(flat(got), np.asarray(want), dtypes=False, atol=1e-2)


def test_a_wider_factor_does_not_widen_the_leaves():
    a, b, factor = make(0, np.float32), make(1, np.float32), jnp.asarray(2.0, "float64")
    with jax.numpy_dtype_promotion("standard"):
        assert_trees_close(tree.scale(factor, a), tree.add(a, a))
        assert_trees_close(tree.axpy(factor, a, b), tree.add(tree.add(a, a), b))


def test_subtracting_undoes_adding():
    a, b = make(0), make(1)
    assert_trees_close(tree.subtract(tree.add(a, b), b), a, atol=1e-14)


def test_where_takes_one_scalar_or_a_mask_per_leaf():
    a, b = make(0), make(1)
    assert_trees_close(tree.where(True, a, b), a, rtol=0)
    assert_trees_close(tree.where(jnp.asarray(False), a, b), b, rtol=0)
    masks = jax.tree.map(lambda x, y: x > y, a, b)
    np.testing.assert_array_equal(
        flat(tree.where(masks, a, b)), np.maximum(flat(a), flat(b))
    )


def test_random_like_draws_each_leaf_apart_and_repeats_with_its_key(key):
    like = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 3)), "c": jnp.ones(4, "float32")}
    drawn = tree.random_like(key, like, jax.random.normal)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
        lambda x: (x.shape, x.dtype), like
    )
    assert (np.asarray(drawn["a"]) != drawn["b"]).all()
    assert_trees_close(drawn, tree.random_like(key, like, jax.random.normal), rtol=0)
    other = tree.random_like(jax.random.key(1), like, jax.random.normal)
    assert (np.asarray(drawn["a"]) != other["a"]).all()


def test_size_counts_scalars():
    assert tree.size(make(0)) == 3 * 2 + 4 + 1


def test_paths_are_plain_names_through_dicts_lists_and_tuples():
    class Pair(NamedTuple):
        first: object
        second: object

    nested = {"x": [Pair(1, {3: 2})], "y": 4}
    paths = [
        tree.path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(nested)
    ]
    assert paths == [("x", 0, "first"), ("x", 0, "second", 3), ("y",)]


def test_select_marks_the_leaves_whose_path_is_chosen():
    chosen = tree.select(make(0), lambda path: path[-1] in ("kernel", 1))
    assert chosen == {"dense": {"kernel": True}, "blocks": [False, True]}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, jnp.bfloat16])
def test_all_finite_notices_one_bad_number(bad, dtype):
    good = make(0, dtype)
    good["count"] = jnp.arange(3)
    assert bool(tree.all_finite(good))
    good["blocks"][0] = good["blocks"][0].at[2].set(bad)
    assert not bool(tree.all_finite(good))
    assert bool(tree.all_finite({}))


def test_leading_axis_is_the_common_length():
    assert tree.leading_axis({"a": np.zeros((5, 2)), "b": np.zeros(5)}) == 5


@pytest.mark.parametrize(
    "uneven",
    [{"a": np.zeros(5), "b": np.zeros(4)}, {}, {"a": np.zeros(5), "b": np.zeros(())}],
)
def test_leading_axis_refuses_leaves_without_a_common_length(uneven):
    with pytest.raises(ValueError, match="one common first axis, got shapes"):
        tree.leading_axis(uneven)


def test_member_undoes_stack():
    members = [make(i) for i in range(3)]
    stacked = tree.stack(members)
    assert tree.leading_axis(stacked) == 3
    for i in range(3):
        assert_trees_close(tree.member(stacked, i), members[i], rtol=0)
