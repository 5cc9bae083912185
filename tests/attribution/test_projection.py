"""Projections against matrices of the same entries, written out, and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.projection import lift, project, signs
from unlearn_jax.curvature.contractions import dense as formed
from unlearn_jax.curvature.per_example import Gradients, loss_gradients, to_form
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.train.loss import squared_norm
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

WIDTH = 70
"""No multiple of 32, so that the last words of signs are cut."""


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def dense():
    """Biases, and weights without positions."""
    params = {"w": draw(2, 4, 6), "b": draw(3, 6), "v": draw(4, 6, 3)}
    inputs = draw(5, 5, 4)
    return params, lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"], inputs


def grouped():
    """A convolution of two groups: positions and groups."""

    def predict(p, x):
        layout = ("NWC", "WIO", "NWC")
        moved = jax.lax.conv_general_dilated(
            x, p["w"], (1,), "SAME", dimension_numbers=layout, feature_group_count=2
        )
        return jnp.sum(jnp.tanh(moved), axis=1)

    return {"w": draw(2, 3, 2, 6)}, predict, draw(3, 5, 7, 4)


def embedding():
    """A table, rows of which an example may read twice."""
    tokens = jnp.asarray([[0, 3, 3, 6], [1, 1, 1, 1], [2, 5, 0, 2], [6, 4, 3, 2]])

    def predict(p, x):
        return jnp.sum(jnp.tanh(p["table"][x]) @ p["v"], axis=1)

    return {"table": draw(2, 7, 4), "v": draw(3, 4, 2)}, predict, tokens


KINDS = {"dense": dense, "grouped": grouped, "embedding": embedding}


class Case:
    """A net's gradients and, in rows, the same numbers in the common form."""

    def __init__(self, name, dtype):
        params, predict, inputs = KINDS[name]()
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        if jnp.issubdtype(inputs.dtype, jnp.floating):
            inputs = inputs.astype(dtype)
        objective = Objective(predict, squared_norm)
        targets = jnp.zeros(len(inputs), jnp.int32)
        batch = Batch(inputs, targets, jnp.ones(len(inputs)))
        self.taped = tape(predict, params, inputs)
        gradients = tiny.quick_jit(lambda p, b: loss_gradients(objective, p, b)[1])
        self.gradients = gradients(params, batch)
        self.dtype = dtype

    def leaves(self):
        """(n, numbers of the leaf) in the order that signs are numbered in."""
        stacked = jax.tree.leaves(formed(self.taped, self.gradients))
        for leaf, (gradient, rows) in enumerate(
            zip(self.gradients, stacked, strict=True)
        ):
            if type(gradient).__name__ != "Whole":
                rows = jax.vmap(lambda x, at=leaf: to_form(self.taped, at, x))(rows)
            yield np.asarray(rows, np.float64).reshape(len(rows), -1)

    def flat(self):
        return np.concatenate(list(self.leaves()), axis=1)

    def project(self, key, gradients=None, **settings):
        found = self.gradients if gradients is None else gradients
        settings = {"kind": "dense", "width": WIDTH} | settings
        return tiny.quick_jit(lambda k, g: project(k, self.taped, g, **settings))(
            key, found
        )


@pytest.fixture(scope="module")
def cases():
    made = {}

    def make(name, dtype=jnp.float64):
        if (name, dtype) not in made:
            made[name, dtype] = Case(name, dtype)
        return made[name, dtype]

    return make


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, jnp.float64) for name in KINDS] + [("dense", jnp.float32)],
)
def test_dense_projection_is_the_product_with_its_signs(cases, key, name, dtype):
    case = cases(name, dtype)
    expected = 0.0
    for leaf, rows in enumerate(case.leaves()):
        places = jnp.arange(rows.shape[1], dtype=jnp.uint32)
        matrix = signs(jax.random.fold_in(key, leaf), places, WIDTH)
        matrix = np.asarray(matrix, np.float64)
        assert set(np.unique(matrix)) == {-1.0, 1.0}
        expected = expected + rows @ matrix / np.sqrt(WIDTH)
    found = case.project(key)
    assert found.dtype == dtype
    scale = 1e-5 if dtype == jnp.float32 else 1e-13
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=scale * np.linalg.norm(expected, axis=1).max()
    )


@pytest.mark.parametrize("kind", ["dense", "gaussian"])
def test_neither_blocks_nor_other_examples_change_a_projection(cases, key, kind):
    case = cases("dense")
    whole = case.project(key, kind=kind)
    np.testing.assert_allclose(
        case.project(key, kind=kind, block=5), whole, rtol=1e-12, atol=1e-13
    )
    some: Gradients = jax.tree.map(lambda x: x[1:3], case.gradients)
    np.testing.assert_allclose(
        case.project(key, some, kind=kind), whole[1:3], rtol=1e-12, atol=1e-13
    )
    other = case.project(jax.random.key(1), kind=kind)
    assert np.abs(other - whole).max() > 0.1 * np.abs(whole).max()


@pytest.mark.parametrize("kind", ["dense", "sketch"])
@pytest.mark.parametrize("name", KINDS)
def test_lift_is_the_transpose(cases, key, name, kind):
    case = cases(name)
    vector = jnp.asarray(np.random.default_rng(0).standard_normal(WIDTH))
    lifted = tiny.quick_jit(lambda k, u: lift(k, case.taped, u, kind=kind))(key, vector)
    stacked = formed(case.taped, case.gradients)
    expected = sum(
        np.tensordot(rows, leaf, axes=leaf.ndim)
        for rows, leaf in zip(
            jax.tree.leaves(stacked), jax.tree.leaves(lifted), strict=True
        )
    )
    found = case.project(key, kind=kind) @ vector
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["dense", "gaussian", "sketch"])
def test_inner_products_are_unbiased_within_their_error(cases, kind):
    case = cases("dense")
    count = 100 if kind == "gaussian" else 400

    @tiny.quick_jit
    def products(keys, gradients):
        def one(key):
            rows = project(key, case.taped, gradients, kind=kind, width=32)
            return rows @ rows.T

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(2), count)
    drawn = np.asarray(products(keys, case.gradients))
    error = drawn.std(axis=0, ddof=1) / np.sqrt(count)
    exact = case.flat() @ case.flat().T
    # A leaf's signs are exact for squares of single numbers, hence the floor.
    floor = 1e-12 * np.abs(exact).max()
    assert np.all(np.abs(drawn.mean(axis=0) - exact) < 4 * error + floor)
    assert np.all(np.diag(error) < 0.1 * np.diag(exact))


def test_columns_and_rows_of_signs_are_uncorrelated(key):
    matrix = np.asarray(signs(key, jnp.arange(512, dtype=jnp.uint32), 512), float)
    assert abs(matrix.mean()) < 4 / 512
    for products in (matrix.T @ matrix, matrix @ matrix.T):
        off = products[~np.eye(512, dtype=bool)] / np.sqrt(512)
        # Each is a standard normal number, nearly.
        assert abs(off.mean()) < 4 / np.sqrt(off.size)
        assert abs(off.std() - 1) < 0.02
        assert np.abs(off).max() < 6


def test_none_keeps_the_gradients_and_bad_names_are_refused(cases, key):
    case = cases("dense")
    stacked = jax.tree.leaves(formed(case.taped, case.gradients))
    expected = np.concatenate([x.reshape(len(x), -1) for x in stacked], axis=1)
    np.testing.assert_array_equal(case.project(key, kind="none"), expected)
    back = lift(key, case.taped, jnp.asarray(expected[0]), kind="none")
    for leaf, rows in zip(jax.tree.leaves(back), stacked, strict=True):
        np.testing.assert_array_equal(leaf, rows[0])
    with pytest.raises(ValueError, match=r"projection 'fast' is unknown.*dense"):
        project(key, case.taped, case.gradients, kind="fast", width=3)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        project(key, case.taped, case.gradients, kind="dense", width=0)
