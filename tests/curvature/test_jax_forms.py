"""Each form of JAX that tapping reads is where it is looked for.

Where one fails, a release of JAX has moved that form: ``jax_forms`` needs its new name.
Meanwhile gradients through it are formed whole: slower, and right.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax import lax
from layer_kinds import COUNT, KINDS, OUTPUTS

from unlearn_jax.curvature import contractions, jax_forms
from unlearn_jax.curvature.per_example import Whole, loss_gradients
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

MATRIX = jnp.arange(12.0).reshape(3, 4)
READERS = ("call", "scan", "product", "convolution", "gather", "rearrangement")


def only(function, *arguments):
    """The last equation of a traced function."""
    return jax.make_jaxpr(function)(*arguments).jaxpr.eqns[-1]


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.checkpoint, lambda f: jax.checkpoint(jax.jit(f))]
)
def test_calls_are_inlined(wrap):
    inner = jax_forms.call(only(wrap(lambda x: jnp.sin(x) + 1), MATRIX))
    assert inner is not None
    assert len(inner.jaxpr.invars) == 1


def test_a_call_holds_the_constants_of_its_program():
    held = np.arange(4.0)
    found = jax.make_jaxpr(lambda x: jax.jit(lambda y: y * held)(x))(held)
    inner = jax_forms.open_jaxpr(found)
    assert inner is not None
    assert len(inner.jaxpr.constvars) == len(inner.consts)
    assert jax_forms.open_jaxpr(None) is None


def test_scan_tells_constants_carries_and_rows_apart():
    def step(carry, row):
        a, b = carry
        return (a + row[0] @ MATRIX.T @ MATRIX, b + 1), (a, row[1] * held)

    held = jnp.arange(2.0)
    rows = (jnp.ones((5, 4)), jnp.ones((5, 2)))
    found = jax_forms.scan(
        only(
            lambda *x: lax.scan(
                lambda c, r: step(c, r), x[:2], x[2:], reverse=True, unroll=2
            ),
            jnp.ones(4),
            0,
            *rows,
        )
    )
    assert found is not None
    assert found[2:] == (2, 5, True, 2)
    assert len(found.body.jaxpr.invars) == found.consts + 4
    assert found.consts >= 1


def test_scan_without_rows_or_carries():
    looped = only(lambda x: lax.scan(lambda c, _: (2 * c, None), x, None, 3), MATRIX)
    found = jax_forms.scan(looped)
    assert found is not None
    assert (found.consts, found.carries, found.length) == (0, 1, 3)
    mapped = only(lambda x: lax.scan(lambda _, r: (None, r * 2), None, x), MATRIX)
    found = jax_forms.scan(mapped)
    assert found is not None
    assert (found.consts, found.carries, found.length) == (0, 0, 3)


def test_products_name_their_axes():
    found = jax_forms.product(
        only(
            lambda a, b: jnp.einsum("bij,bjk->bik", a, b), MATRIX[None], MATRIX.T[None]
        )
    )
    assert found is not None
    contract, batch = (
        tuple(tuple(side) for side in axes) for axes in (found.contract, found.batch)
    )
    assert (contract, batch) == (((2,), (1,)), ((0,), (0,)))


def test_convolutions_name_axes_strides_and_dilations():
    images, kernel = jnp.ones((1, 2, 8, 9)), jnp.ones((4, 1, 2, 3))
    options = {
        "window_strides": (2, 1),
        "padding": ((0, 1), (2, 0)),
        "lhs_dilation": (1, 2),
        "rhs_dilation": (2, 1),
        "feature_group_count": 2,
    }
    found = jax_forms.convolution(
        only(lambda x, k: lax.conv_general_dilated(x, k, **options), images, kernel)
    )
    assert found is not None
    axes = (tuple(found.images), tuple(found.kernel), tuple(found.results))
    assert axes == ((0, 1, 2, 3),) * 3
    assert found[3:] == (2, (2, 1), ((0, 1), (2, 0)), (1, 2), (2, 1))
    grouped = only(
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), "SAME", batch_group_count=2
        ),
        jnp.ones((2, 2, 4, 4)),
        jnp.ones((4, 2, 3, 3)),
    )
    assert jax_forms.convolution(grouped) is None


@pytest.mark.parametrize(("mode", "clip"), [("clip", True), ("fill", False)])
def test_gathers_name_windows(mode, clip):
    def read(table, rows):
        return table.at[:, rows].get(mode=mode)

    (found,) = filter(
        None,
        map(jax_forms.gather, jax.make_jaxpr(read)(MATRIX, jnp.arange(2)).jaxpr.eqns),
    )
    assert found == ((0,), (1,), (1,), (3, 1), clip, False)


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        (lambda x: x.reshape(2, 6), (("reshape", (2, 6)),)),
        (lambda x: lax.reshape(x, (12,), (1, 0)), None),
        (lambda x: x.T, (("transpose", (1, 0)),)),
        (lambda x: lax.rev(x, (1,)), (("flip", (1,)),)),
        (lambda x: lax.expand_dims(x, (1,)), (("reshape", (3, 1, 4)),)),
        (lambda x: lax.squeeze(x[:, :1], (1,)), (("reshape", (3,)),)),
        (lambda x: x.astype(jnp.bfloat16), ()),
        (lambda x: jnp.copy(x), ()),
        (lambda x: lax.broadcast_in_dim(x, (3, 1, 4), (0, 2)), None),
    ],
)
def test_rearrangements_are_read_as_steps(function, steps):
    found = jax_forms.rearrangement(only(function, MATRIX))
    assert found is not None
    if steps is not None:
        assert found == steps


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.astype(int),
        lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1, 2)),
        jnp.sin,
        lambda x: lax.slice(x, (0, 0), (1, 4)),
    ],
)
def test_what_changes_numbers_is_no_rearrangement(function):
    assert jax_forms.rearrangement(only(function, MATRIX)) is None


def test_factors_copies_and_stopped_gradients():
    assert jax_forms.factors(only(lambda x: x * 2.0, MATRIX)) == (0, 1)
    assert jax_forms.factors(only(lambda x: x / 2.0, MATRIX)) == (1,)
    assert jax_forms.factors(only(lambda x: x + 2.0, MATRIX)) == ()
    copied = only(lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1, 2)), MATRIX)
    assert jax_forms.spreads(copied)
    assert not jax_forms.spreads(only(jnp.sin, MATRIX))
    stopped = jax.make_jaxpr(lambda x: lax.stop_gradient(x) * 1)(MATRIX).jaxpr.eqns
    assert any(jax_forms.stops_gradient(equation) for equation in stopped)


def test_an_equation_runs_as_it_stood():
    equation = only(lambda x: x.T, MATRIX)
    (result,) = jax_forms.bind(equation, [MATRIX + 1])
    np.testing.assert_array_equal(result, MATRIX.T + 1)


@pytest.mark.parametrize("name", ["dense", "strided", "embedding", "learned start"])
@pytest.mark.parametrize("moved", ["names", "parameters"])
def test_forms_that_moved_are_formed_whole_and_right(monkeypatch, name, moved):
    if moved == "names":
        for reader in READERS:
            monkeypatch.setattr(jax_forms, reader, lambda equation: None)
    else:  # A parameter that nobody has seen may change what all the others mean.
        known = jax_forms._read

        def read(equation, primitive, wanted, unread=()):
            return known(equation, primitive, ("unseen", *wanted), unread)

        monkeypatch.setattr(jax_forms, "_read", read)
    params, predict, inputs = KINDS[name]()
    objective = Objective(predict, cross_entropy)
    targets = np.arange(COUNT, dtype=np.int32) % OUTPUTS
    batch = Batch(inputs, targets, jnp.ones(COUNT))
    taped, gradients = loss_gradients(objective, params, batch)
    assert all(isinstance(gradient, Whole) for gradient in gradients)
    expected = jax.jacrev(objective.example_losses)(params, batch)
    found = contractions.dense(taped, gradients)
    assert_trees_close(found, expected, rtol=1e-9, atol=1e-12)
