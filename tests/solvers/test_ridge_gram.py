"""Ridge regression as sums: no history, no drift, honest errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from rows import F, K, fresh, join, part, rows, weighted

from unlearn_jax.solvers.refusal import (
    ILL_CONDITIONED,
    INDEFINITE,
    NOT_FINITE,
    TOO_MUCH,
    RefusedError,
    check_applied,
)
from unlearn_jax.solvers.ridge_gram import (
    gram_add,
    gram_add_sums,
    gram_remove,
    gram_remove_sums,
    gram_replace,
    gram_solve,
    gram_start,
)
from unlearn_jax.types import Batch

pytestmark = pytest.mark.optimised

MOST = 48
ALL = rows(40)
_REPLACE = tiny.quick_jit(gram_replace)
_ADD, _REMOVE = tiny.quick_jit(gram_add), tiny.quick_jit(gram_remove)


def full(batch):
    """Padded to one shape, so that all requests share two programs."""
    extra = MOST - len(batch.weights)
    dtype = batch.weights.dtype
    hole = Batch(
        np.full((extra, F), np.nan, dtype),
        np.full((extra, K), np.nan, dtype),
        np.zeros(extra, dtype),
    )
    return join(batch, hole)


def add(state, batch):
    return _ADD(state, full(batch))


def remove(state, batch):
    return _REMOVE(state, full(batch))


def start(l2=0.1, dtype=jnp.float64):
    return gram_start(F, K, l2=l2, dtype=dtype)


def same_bits(a, b):
    pairs = zip(a, b, strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.mark.parametrize("grid", [True, False])
def test_equals_least_squares(grid):
    batch = rows(40, grid=grid)
    state = check_applied(add(start(), batch))
    np.testing.assert_allclose(state.weight, fresh(batch, 0.1), rtol=1e-11)
    assert float(state.count) == 40
    assert float(state.residual) < 1e-16
    assert float(state.error) < 1e-15


def test_forgetting_leaves_no_trace_in_any_order():
    kept, gone = part(ALL, slice(0, 30)), part(ALL, slice(30, 40))
    state = add(add(start(), gone), part(ALL, slice(15, 30)))
    state = add(remove(state, part(gone, slice(5, 10))), part(ALL, slice(0, 15)))
    state = check_applied(remove(state, part(gone, slice(0, 5))))
    assert bool(state.exact)
    assert same_bits(state, add(start(), part(kept, np.arange(30)[::-1])))


def test_rows_of_any_digits_leave_no_trace_either():
    outlier = rows(1, 5, grid=False)
    outlier = outlier._replace(inputs=outlier.inputs * 1e5)
    gone = join(rows(7, 3, grid=False), outlier)
    state = check_applied(add(add(start(), ALL), gone))
    state = check_applied(remove(remove(state, outlier), part(gone, slice(0, 7))))
    assert_trees_close(state.weight, add(start(), ALL).weight, rtol=1e-14)


def test_everything_forgotten_is_nothing_learnt():
    assert same_bits(check_applied(remove(add(start(1e-6), ALL), ALL)), start(1e-6))


@pytest.mark.parametrize("l2", [1.0, 1e-3, 1e-6, 1e-9])
def test_error_of_the_weights_is_rounding_however_small_the_ridge(l2):
    batch = rows(60, f=12)
    narrow = batch._replace(inputs=np.repeat(batch.inputs[:, :6], 2, axis=1))
    bumped = narrow.inputs + np.round(batch.inputs * 4) / 2.0**16
    batch = narrow._replace(inputs=bumped)
    state = check_applied(tiny.quick_jit(gram_add)(gram_start(12, K, l2=l2), batch))
    exact = exact_solution(batch, l2)
    plain = np.linalg.solve(
        batch.inputs.T @ batch.inputs + l2 * np.eye(12), batch.inputs.T @ batch.targets
    )
    error = np.linalg.norm(state.weight - exact) / np.linalg.norm(exact)
    usual = np.linalg.norm(plain - exact) / np.linalg.norm(exact)
    assert error < 1e-15
    assert error <= 10 * usual
    assert error <= 4 * max(float(state.error), 2.0**-53)


def exact_solution(batch, l2):
    """Gaussian elimination in rational numbers."""
    from fractions import Fraction

    def rational(array):
        flat = [Fraction(float(x)) for x in np.ravel(array)]
        return np.array(flat, dtype=object).reshape(np.shape(array))

    x, y = rational(batch.inputs), rational(batch.targets)
    f = batch.inputs.shape[1]
    ridge = rational(np.diag(np.full(f, l2)))
    table = np.concatenate([x.T @ x + ridge, x.T @ y], axis=1)
    for i in range(f):
        table[i] /= table[i][i]
        for j in range(f):
            if j != i:
                table[j] -= table[j][i] * table[i]
    return table[:, f:].astype(np.float64)


def test_weights_of_rows():
    weights = np.random.default_rng(1).uniform(0, 2, 40)
    weights[3] = 0
    poisoned = ALL.inputs.copy()
    poisoned[3] = np.nan
    batch = weighted(ALL._replace(inputs=poisoned), weights)
    state = check_applied(add(start(), batch))
    expected = fresh(weighted(ALL, weights), 0.1)
    np.testing.assert_allclose(state.weight, expected, rtol=1e-11)
    less = check_applied(remove(state, part(batch, slice(0, 9))))
    rest = part(weighted(ALL, weights), slice(9, 40))
    np.testing.assert_allclose(less.weight, fresh(rest, 0.1), rtol=1e-11)


@pytest.mark.parametrize("weight", [2.0, 6.0, 0.25])
def test_a_weight_that_is_taken_in_parts_is_not_called_exact(weight):
    batch = weighted(part(ALL, slice(0, 3)), np.full(3, weight))
    half = weighted(batch, np.full(3, weight / 2))
    state = check_applied(remove(remove(add(start(), batch), half), half))
    assert not bool(state.exact)
    assert float(jnp.abs(state.gram).max()) < 1e-13


def test_products_that_underflow_are_not_called_exact():
    tiny_rows = ALL._replace(inputs=ALL.inputs * 2.0**-510)
    assert not bool(add(start(), tiny_rows).exact)


def test_replacing_is_forgetting_and_learning():
    old, new = part(ALL, slice(0, 5)), rows(3, 9)
    state = check_applied(_REPLACE(add(start(), ALL), full(old), full(new)))
    assert same_bits(state, add(start(), join(part(ALL, slice(5, 40)), new)))


def test_a_whole_task_is_added_and_removed_by_its_sums():
    first, task = part(ALL, slice(0, 25)), part(ALL, slice(25, 40))
    apart, alone = add(start(), task), add(start(), first)
    both = check_applied(tiny.quick_jit(gram_add_sums)(alone, apart))
    assert same_bits(both, add(start(), ALL))
    assert same_bits(tiny.quick_jit(gram_remove_sums)(both, apart), alone)
    wider = gram_start(F, K + 1, l2=0.1)
    with pytest.raises(ValueError, match="add the missing classes"):
        gram_add_sums(alone, wider)


def test_sums_first_and_one_solve_at_the_end():
    lazy = tiny.quick_jit(partial(gram_add, solve=False))
    state = lazy(lazy(start(), part(ALL, slice(0, 7))), part(ALL, slice(7, 40)))
    assert float(jnp.abs(state.weight).max()) == 0
    assert same_bits(tiny.quick_jit(gram_solve)(state), add(start(), ALL))


def spoiled(batch, value):
    inputs = batch.inputs.copy()
    inputs[1, 2] = value
    return batch._replace(inputs=inputs)


STRANGE = rows(3, 77)._replace(inputs=5 * rows(3, 77).inputs)


@pytest.mark.parametrize(
    ("request_rows", "code"),
    [
        (STRANGE, INDEFINITE),
        (join(ALL, part(ALL, slice(0, 1))), TOO_MUCH),
        (weighted(part(ALL, slice(0, 2)), [1e9, 1]), TOO_MUCH),
        (spoiled(part(ALL, slice(0, 4)), np.nan), NOT_FINITE),
        (spoiled(part(ALL, slice(0, 4)), np.inf), NOT_FINITE),
        (spoiled(part(ALL, slice(0, 4)), 1e200), NOT_FINITE),
    ],
)
def test_refused_requests_change_nothing_but_the_code(request_rows, code):
    state = add(start(), ALL)
    after = remove(state, request_rows)
    assert int(after.code) == code
    assert same_bits(after._replace(code=state.code), state)
    with pytest.raises(RefusedError, match="the state is unharmed"):
        check_applied(after)
    assert same_bits(check_applied(remove(add(after, STRANGE), STRANGE)), state)


def test_replacing_is_refused_as_a_whole():
    state = add(start(), ALL)
    for old, new in [
        (STRANGE, rows(2)),
        (part(ALL, slice(0, 2)), spoiled(rows(2), np.nan)),
    ]:
        after = _REPLACE(state, full(old), full(new))
        assert int(after.code) != 0
        assert same_bits(after._replace(code=state.code), state)


def test_what_float32_cannot_solve_is_refused_and_float64_is_not():
    batch = rows(2000, f=3)
    close = np.concatenate([batch.inputs, batch.inputs[:, :1] + 2.0**-14], axis=1)
    for dtype, code in [
        (np.float32, (ILL_CONDITIONED, INDEFINITE)),
        (np.float64, (0,)),
    ]:
        given = to_dtype(batch._replace(inputs=close), dtype)
        state = tiny.quick_jit(gram_add)(gram_start(4, K, l2=4e-5, dtype=dtype), given)
        assert int(state.code) in code


def to_dtype(batch, dtype):
    return Batch(*(leaf.astype(dtype) for leaf in batch))


def test_float32_keeps_to_the_error_it_reports():
    state = start(0.1, jnp.float32)
    for i in range(0, 40, 8):
        state = add(state, to_dtype(part(ALL, slice(i, i + 8)), np.float32))
    for i in range(0, 16, 8):
        state = remove(state, to_dtype(part(ALL, slice(i, i + 8)), np.float32))
    check_applied(state)
    expected = fresh(part(ALL, slice(16, 40)), 0.1)
    off = np.linalg.norm(state.weight - expected) / np.linalg.norm(expected)
    assert state.weight.dtype == jnp.float32
    assert off < 1e-5
    assert off < 20 * max(float(state.error), 2.0**-24)


def test_heads_forget_together():
    masks = np.random.default_rng(2).integers(0, 2, (3, 40)).astype(float)
    masks[:, :4] = 1
    batches = jax.vmap(lambda w: ALL._replace(weights=w))(masks)
    gone = part(ALL, slice(0, 4))

    @tiny.quick_jit
    @jax.vmap
    def learn_and_forget(batch):
        return gram_remove(gram_add(start(), batch, slices=1), gone, slices=1)

    after = learn_and_forget(batches)
    for i, mask in enumerate(masks):
        mask = mask.copy()
        mask[:4] = 0
        alone = add(start(), weighted(ALL, mask))
        np.testing.assert_allclose(after.weight[i], alone.weight, rtol=1e-13)
        np.testing.assert_array_equal(after.gram[i], alone.gram)


def test_donated_buffers_are_used_again():
    change = jax.jit(gram_remove, donate_argnums=0)
    given = add(start(), ALL)
    expected = remove(given, part(ALL, slice(0, 3)))
    after = change(given, full(part(ALL, slice(0, 3))))
    assert given.gram.is_deleted()
    assert same_bits(after, expected)


def test_more_rows_than_a_block():
    batch = rows(2500)
    state = check_applied(tiny.quick_jit(partial(gram_add, slices=1))(start(), batch))
    assert bool(state.exact)
    np.testing.assert_allclose(state.weight, fresh(batch, 0.1), rtol=1e-10)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (ALL._replace(weights=np.ones(39)), "weights"),
        (ALL._replace(targets=np.ones((40, 5))), r"targets \(n, 2\)"),
        (ALL._replace(inputs=ALL.inputs.astype(np.float32)), "convert them first"),
        (part(ALL, slice(0, 0)), "at least 1"),
    ],
)
def test_wrong_rows_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        gram_add(start(), bad)


def test_impossible_states_are_named():
    with pytest.raises(ValueError, match=r"l2 is 0\.0"):
        gram_start(3, 2, l2=0.0)
    with pytest.raises(ValueError, match="got 0 and 2"):
        gram_start(0, 2, l2=1.0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit mode"):
        gram_start(3, 2, l2=1.0)
