"""The problems of TRAK's tests of random projections.

A projection is asked for through a linear model with one output, whose gradient by its
parameters is the input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from posed import Table, refused
from small_nets import numbers
from tiny import quick_jit as quick

from unlearn_jax.attribution.projection import project
from unlearn_jax.attribution.trak import trak
from unlearn_jax.curvature.per_example import per_example

TABLE = Table("trak", {})
poses = TABLE.poses
KINDS = ("dense", "gaussian", "sketch")
WIDTH = 64


def project_rows(key, rows, kind, width=WIDTH, block=None):
    params = {"w": jnp.zeros((rows.shape[1], 1), rows.dtype)}
    linear = per_example(lambda p, x: x @ p["w"], params, rows)
    gradients = linear.pull(jnp.ones_like(linear.outputs))
    return project(key, linear.tape, gradients, kind=kind, width=width, block=block)


@functools.cache
def projector(kind, **options):
    """(key, rows) -> projected rows, as one program for each shape."""
    return quick(lambda key, rows: project_rows(key, rows, kind, **options))


@functools.cache
def many(kind):
    """The projections under 200 keys of the rows below."""
    keys = jax.random.split(jax.random.key(3), 200)
    rows, _ = projected(kind)
    return quick(jax.vmap(lambda key: project_rows(key, rows, kind)))(keys)


@functools.cache
def projected(kind):
    """Six rows of 25 numbers, two of them equal, under one key."""
    rows = numbers(0, 6, 25).at[1].set(numbers(0, 6, 25)[0])
    return rows, projector(kind)(jax.random.key(1), rows)


def same_key(kind):
    rows, first = projected(kind)
    np.testing.assert_array_equal(projector(kind)(jax.random.key(1), rows), first)
    other = projector(kind)(jax.random.key(2), rows)
    assert np.abs(other - first).max() > 0.1


def new_program(kind):
    rows, first = projected(kind)
    projector.cache_clear()
    np.testing.assert_array_equal(projector(kind)(jax.random.key(1), rows), first)


def preserved(kind, of_differences):
    """Norms or products over 200 keys: the mean is right within five errors."""
    rows, _ = projected(kind)
    found = many(kind)
    if of_differences:
        got = jnp.sum((found[:, 2] - found[:, 3]) ** 2, axis=1)
        expected = jnp.sum((rows[2] - rows[3]) ** 2)
    else:
        got = jnp.sum(found[:, 2] * found[:, 4], axis=1)
        expected = rows[2] @ rows[4]
    error = jnp.std(got) / np.sqrt(len(got))
    assert jnp.abs(jnp.mean(got) - expected) < 5 * error
    # One projection scatters as 1/√width, no worse than twice a Gaussian's.
    size = jnp.linalg.norm(rows[2]) * jnp.linalg.norm(rows[4])
    assert jnp.std(got) < 4 * (expected if of_differences else size) / np.sqrt(WIDTH)


def one_place(kind, place):
    rows = jnp.zeros((6, 25)).at[0, place].set(1.7)
    found = projector(kind)(jax.random.key(1), rows)
    if kind == "sketch":
        np.testing.assert_allclose(jnp.linalg.norm(found[0]), 1.7, rtol=1e-12)
    else:
        assert jnp.all(jnp.abs(found[0]) > 0)
    assert jnp.all(found[1:] == 0)


def same_features(kind):
    _, found = projected(kind)
    np.testing.assert_array_equal(found[0], found[1])


def in_other_blocks(kind):
    rows, found = projected(kind)
    again = projector(kind, block=7)(jax.random.key(1), rows)
    np.testing.assert_allclose(again, found, rtol=1e-12, atol=1e-13)


def orthogonal(kind):
    """PᵀP is the identity in the mean."""
    keys = jax.random.split(jax.random.key(4), 200)
    rows = jnp.eye(6, 25)
    found = quick(jax.vmap(lambda key: project_rows(key, rows, kind)))(keys)
    products = jnp.einsum("kiw,kjw->kij", found, found)
    mean, error = jnp.mean(products, axis=0), jnp.std(products, axis=0) / np.sqrt(200)
    assert jnp.all(jnp.abs(mean - jnp.eye(6)) <= 5 * error + 1e-12)


JL = "tests/test_jl.py::test_"
for _kind in KINDS:
    for _name, _source, _check, *_values in (
        ("one key, one result", f"{JL}seed_consistency", same_key),
        ("norms of differences", f"{JL}norm_preservation", preserved, True),
        ("products", f"{JL}prod_preservation", preserved, False),
        ("a single place", f"{JL}single_nonzero_feature", one_place, 11),
        (
            "equal rows",
            "tests/test_jl_additional.py::test_same_features",
            same_features,
        ),
    ):
        TABLE.add(f"{_kind}: {_name}", _source, _check, _kind, *_values)
_FIRST = f"{JL}first_nonzero_feature"
TABLE.add("dense: the first place", _FIRST, one_place, "dense", 0)
TABLE.add("dense: the last place", f"{JL}last_nonzero_feature", one_place, "dense", 24)
TABLE.add("dense: made anew", f"{JL}seed_consistency_2", new_program, "dense")
TABLE.add("dense: unit vectors", f"{JL}orthogonality", orthogonal, "dense")
TABLE.add(
    "dense: in other blocks",
    "tests/test_jl_additional.py::test_same_features_diff_sms",
    *(in_other_blocks, "dense"),
)


def ones(size):
    """A sum of signs has the parity of their number."""
    found = projector("dense")(jax.random.key(5), jnp.ones((2, size)))
    sums = np.asarray(found * np.sqrt(WIDTH))
    np.testing.assert_allclose(sums, np.round(sums), atol=1e-9)
    assert np.all(np.round(sums) % 2 == size % 2)


SIGNS = "tests/test_rademacher.py::test_"
TABLE.add("signs of an even number of places", f"{SIGNS}even", ones, 24)
TABLE.add("signs of an odd number of places", f"{SIGNS}odd", ones, 25)


@poses("as wide as asked, in half precision", f"{SIGNS}shape")
def _():
    rows = numbers(6, 2, 25)
    exactly = projector("dense", width=48)(jax.random.key(1), rows)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        found = projector("dense", width=48)(jax.random.key(1), rows.astype(dtype))
        assert found.shape == (2, 48)
        assert found.dtype == jnp.float32
        unit = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(found, exactly, atol=30 * max(unit, 1e-6))


@poses(
    "an unknown kind, and no width",
    f"{SIGNS}running",
)
def _():
    learner = tiny.learner("softmax")
    with refused("'fast'", "sketch, dense, gaussian, none"):
        trak(learner, projection="fast")
    with refused("width must be at least 1"):
        trak(learner, width=0)


@TABLE.cases()
def test_trak_projection(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
