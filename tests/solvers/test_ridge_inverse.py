"""The inverse form of ridge regression, at once and deferred, against dense solves."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rows as data
import tiny

from unlearn_jax.solvers import refusal, symmetric_update
from unlearn_jax.solvers import ridge_deferred as deferred
from unlearn_jax.solvers import ridge_inverse as inverse
from unlearn_jax.types import Batch

pytestmark = pytest.mark.optimised

F, K, L2 = 12, 3, 0.1
ADD = tiny.quick_jit(inverse.inverse_add)
REMOVE = tiny.quick_jit(inverse.inverse_remove)
REPLACE = tiny.quick_jit(inverse.inverse_replace)
LATER_ADD = tiny.quick_jit(deferred.deferred_add)
LATER_REMOVE = tiny.quick_jit(deferred.deferred_remove)
REFRESH = tiny.quick_jit(deferred.deferred_refresh)


def rows(n, seed=0, dtype: Any = np.float64):
    random = np.random.default_rng(1000 + seed)
    batch = data.rows(n, seed, grid=False, f=F, k=K, dtype=dtype)
    return data.weighted(batch, random.uniform(0.2, 3, n))


def start(dtype=jnp.float64, l2=L2):
    return inverse.inverse_start(F, K, l2=l2, dtype=dtype)


def dense_inverse(batch, l2=L2):
    x = np.asarray(batch.inputs, np.float64)
    return np.linalg.inv(x.T @ (batch.weights[:, None] * x) + l2 * np.eye(x.shape[1]))


def assert_is_fit(state, batch, rtol=1e-9):
    want = data.fresh(batch, L2)
    np.testing.assert_allclose(state.weight, want, rtol=0, atol=rtol * abs(want).max())
    want = dense_inverse(batch)
    np.testing.assert_allclose(state.inverse, want, rtol=0, atol=rtol * abs(want).max())
    np.testing.assert_allclose(state.count, batch.weights.sum(), rtol=1e-12)
    np.testing.assert_array_equal(state.inverse, np.asarray(state.inverse).T)
    assert int(state.code) == refusal.APPLIED


def assert_unharmed(after, before, code):
    assert int(after.code) == code
    for name, old, new in zip(before._fields, before, after, strict=True):
        if name != "code":
            assert np.asarray(new).tobytes() == np.asarray(old).tobytes(), name


def padded(batch, size):
    """Rows of NaN with weight 0 among the others."""
    n = len(batch.weights)
    places = np.random.default_rng(0).permutation(size)[:n]
    wide = []
    for leaf, fill in zip(batch, (np.nan, np.inf, 0.0), strict=True):
        new = np.full((size, *leaf.shape[1:]), fill, leaf.dtype)
        new[places] = leaf
        wide.append(new)
    return Batch(*wide)


@pytest.fixture(scope="module")
def learned():
    return rows(40), ADD(start(), rows(40))


def test_mixed_streams_equal_dense_solves():
    random = np.random.default_rng(7)
    state, within = start(), rows(9, 1)
    state = ADD(state, within)
    for step in range(40):
        size = (2, 7, 20)[step % 3]
        held = len(within.weights)
        chosen = random.permutation(held)[:size]
        rest = np.setdiff1d(np.arange(held), chosen)
        new = rows(size, 10 + step)
        if held < 3 * size:
            state, within = ADD(state, padded(new, 24)), data.join(within, new)
        elif step % 2:
            state = REMOVE(state, padded(data.part(within, chosen), 24))
            within = data.part(within, rest)
        else:
            old = padded(data.part(within, chosen), 24)
            state = REPLACE(state, old, padded(new, 24))
            within = data.join(data.part(within, rest), new)
        assert_is_fit(state, within)
        assert 0 < float(state.margin) <= 1


@pytest.mark.parametrize("n", [1, F, F + 1, F + K + 1, 35])
def test_any_number_of_rows_comes_and_goes(n, learned):
    within, state = learned
    first, rest = np.arange(n), np.arange(n, 40)
    less = REMOVE(state, data.part(within, first))
    assert_is_fit(less, data.part(within, rest))
    assert_is_fit(ADD(less, data.part(within, first)), within)


def test_part_of_a_weight_can_be_removed(learned):
    within, state = learned
    part = data.part(within, slice(3, 8))
    less = REMOVE(state, data.weighted(part, part.weights / 4))
    weights = within.weights.copy()
    weights[3:8] *= 0.75
    assert_is_fit(less, data.weighted(within, weights))


def test_replacement_equals_removal_then_addition(learned):
    within, state = learned
    old, new = data.part(within, slice(0, 5)), rows(8, 2)
    at_once, in_turn = REPLACE(state, old, new), ADD(REMOVE(state, old), new)
    for one, other in zip(at_once, in_turn, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_margin_is_the_smallest_pivot_of_the_removal(learned):
    within, state = learned
    row = data.part(within, [4])
    x = row.inputs[0]
    share = row.weights[0] * float(x @ state.inverse @ x)
    less = REMOVE(state, row)
    np.testing.assert_allclose(less.margin, 1 - share, rtol=1e-12)
    assert float(ADD(less, row).margin) == float(less.margin)


def faults(within):
    row = data.part(within, [0, 1])
    broken = {
        name: row._replace(**{name: getattr(row, name).copy()}) for name in row._fields
    }
    broken["inputs"].inputs[1, 2] = np.nan
    broken["targets"].targets[0, 0] = np.inf
    broken["weights"].weights[1] = np.nan
    negative = data.weighted(row, -row.weights)
    far = row._replace(inputs=1e3 * row.inputs)
    heavy = data.weighted(data.part(within, [0]), [1e6])
    yield from ((broken[name], refusal.NOT_FINITE) for name in row._fields)
    yield negative, refusal.NOT_FINITE
    yield far, refusal.INDEFINITE
    yield data.part(heavy, [0, 0]), refusal.TOO_MUCH


FAULTS = "inputs targets weights negative indefinite heavy".split()


@pytest.mark.parametrize("fault", range(len(FAULTS)), ids=FAULTS)
def test_refused_removals_leave_every_bit(fault, learned):
    within, state = learned
    request, code = list(faults(within))[fault]
    assert_unharmed(REMOVE(state, request), state, code)
    new = rows(2, 3)
    assert_unharmed(REPLACE(state, request, new), state, code)
    many = data.join(request, data.part(within, np.arange(2, 30)))
    assert_unharmed(REMOVE(state, many), state, code)
    later = deferred.deferred_start(state, capacity=4)
    later = LATER_REMOVE(later, data.part(within, [5, 6]))
    assert_unharmed(LATER_REMOVE(later, request), later, code)
    if code == refusal.NOT_FINITE:
        assert_unharmed(ADD(state, request), state, code)
        good = data.part(within, [7, 8])
        assert_unharmed(REPLACE(state, good, request), state, code)
        assert_unharmed(LATER_ADD(later, request), later, code)


def test_a_code_does_not_stick(learned):
    within, state = learned
    wrong = REMOVE(state, list(faults(within))[4][0])
    with pytest.raises(refusal.RefusedError, match="never learned"):
        refusal.check_applied(wrong)
    less = REMOVE(wrong, data.part(within, slice(0, 2)))
    assert_is_fit(refusal.check_applied(less), data.part(within, slice(2, 40)))


def test_what_could_not_be_forgotten_is_not_learned():
    row = data.weighted(rows(1, 4), [1.0])
    for l2, code in (
        (1e-3, refusal.APPLIED),
        (1e-6, refusal.TOO_LARGE),
        (1e-10, refusal.TOO_LARGE),
    ):
        start = inverse.inverse_start(F, K, l2=l2)
        state = ADD(start, row)
        assert int(state.code) == code
        if code == refusal.APPLIED:
            after = REMOVE(state, row)
            assert 0 < float(after.error) < 1e-6
            assert float(jnp.abs(after.weight).max()) < 10 * float(after.error)
        else:
            assert_unharmed(state, start, code)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_accepted_can_be_forgotten(seed):
    """Rows of wild weights, scales and targets come; those that were accepted go in
    another order and grouping, to the last; weights against dense solves, the inverse
    against an explicit one."""
    random = np.random.default_rng(seed)
    state, held = start(), []
    for step in range(24):
        new = data.part(rows(6, 50 * seed + step), slice(0, 2))
        wild = 10.0 ** random.uniform(-3, 7, 2) if step % 2 else np.ones(2)
        size = 10.0 ** random.uniform(0, 16 if step % 3 else 0)
        new = data.weighted(new._replace(targets=size * new.targets), wild)
        after = ADD(state, new)
        if int(after.code) == refusal.APPLIED:
            state = after
            held.append(new)
        else:
            assert_unharmed(after, state, refusal.TOO_LARGE)
    assert 4 < len(held) < 24
    within = data.join(*held)
    loud = np.abs(np.sqrt(within.weights)[:, None] * within.targets).max(1) > 100
    order = np.concatenate(
        [np.flatnonzero(loud), random.permutation(np.flatnonzero(~loud))]
    )
    heavy, limit = len(order), 2.0**-5
    for first in range(0, heavy, 4):
        state = REMOVE(state, padded(data.part(within, order[first : first + 4]), 24))
        assert int(state.code) == refusal.APPLIED
        left = data.part(within, order[first + 4 :])
        want = dense_inverse(left)
        assert np.linalg.norm(state.inverse - want, 2) <= limit * np.linalg.norm(
            want, 2
        )
        if first + 4 >= loud.sum() and len(left.weights):
            want = data.fresh(left, L2)
            gap = np.linalg.norm(state.weight - want)
            assert gap <= limit * np.linalg.norm(want)
    assert float(state.error) <= limit
    np.testing.assert_allclose(state.inverse, np.eye(F) / L2, atol=limit / L2)
    quiet = ADD(state, rows(4, 3))
    want = data.fresh(rows(4, 3), L2)
    assert np.linalg.norm(quiet.weight - want) <= limit * np.linalg.norm(want)


@pytest.mark.parametrize("size", [1e6, 1e9, 1e12, 1e14, 1e20])
@pytest.mark.parametrize("first", [True, False])
def test_a_loud_target_leaves_nothing_behind(first, size, learned):
    within, honest = learned
    row = data.part(rows(3, 9), [0])
    row = data.weighted(row._replace(targets=np.full((1, K), size)), [1.0])
    loud = ADD(start() if first else honest, row)
    if size > 2.0**40:
        assert int(loud.code) == refusal.TOO_LARGE
        return
    both = ADD(loud, within) if first else loud
    after = REMOVE(both, row)
    assert int(after.code) == refusal.APPLIED
    want = data.fresh(within, L2)
    np.testing.assert_allclose(after.weight, want, rtol=0, atol=1e-8 * abs(want).max())


def test_everything_can_go(learned):
    within, state = learned
    nothing = REMOVE(state, within)
    assert float(nothing.count) == 0
    np.testing.assert_allclose(nothing.weight, 0, atol=1e-9)
    np.testing.assert_allclose(nothing.inverse, np.eye(F) / L2, atol=1e-7)
    again = REMOVE(nothing, data.part(within, slice(0, 2)))
    assert int(again.code) in (refusal.TOO_MUCH, refusal.INDEFINITE)


def test_heads_by_vmap_equal_a_loop(learned):
    within, state = learned
    good = data.part(within, [0, 1])
    requests = [good, list(faults(within))[4][0], data.part(within, [6, 7])]
    stack = Batch(*(np.stack(leaves) for leaves in zip(*requests, strict=True)))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    mapped = tiny.quick_jit(jax.vmap(inverse.inverse_remove))(states, stack)
    assert mapped.code.tolist() == [0, refusal.INDEFINITE, 0]
    for i, request in enumerate(requests):
        one = REMOVE(state, request)
        for got, want in zip(
            jax.tree.map(lambda x, i=i: x[i], mapped), one, strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)
    member = jax.tree.map(lambda leaf: leaf[1], mapped)
    assert_unharmed(member, state, refusal.INDEFINITE)


def test_donated_update_equals_the_undonated_one(learned):
    within, state = learned
    request = data.part(within, slice(0, 6))
    own = jax.tree.map(jnp.copy, state)
    donated = inverse.donating(inverse.inverse_remove)(own, request)
    assert own.inverse.is_deleted()
    assert not state.inverse.is_deleted()
    want = jax.jit(inverse.inverse_remove)(state, request)
    for got, one in zip(donated, want, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize(
    ("f", "n"), [(64, 20), (64, 150), (61, 20), (61, 150), (45, 1)]
)
def test_product_in_panels_and_blocks_is_symmetric(f, n):
    random = np.random.default_rng(f + n)
    matrix, factor = random.normal(size=(f, f)), random.normal(size=(f, n))
    matrix, signs = matrix + matrix.T, random.choice([-1.0, 1.0], n)
    update = jax.jit(symmetric_update.subtract_product, static_argnames="block")
    got = np.asarray(update(matrix, factor, signs, block=16))
    np.testing.assert_allclose(got, matrix - factor * signs @ factor.T, atol=1e-11)
    np.testing.assert_array_equal(got, got.T)
    kept = np.asarray(update(matrix, 0 * factor, signs, block=16))
    assert kept.tobytes() == matrix.tobytes()


@pytest.mark.parametrize("f", [64, 61, 16])
def test_lower_half_replaces_whatever_is_above(f):
    matrix = np.random.default_rng(f).normal(size=(f, f))
    got = jax.jit(symmetric_update._mirror, static_argnames="size")(matrix, size=16)
    want = np.tril(matrix) + np.tril(matrix, -1).T
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [1, 32, 150])
def test_update_in_place_holds_no_second_matrix(n):
    f = 1024
    state = jax.eval_shape(lambda: inverse.inverse_start(f, K, l2=L2))
    request = jax.eval_shape(
        lambda: Batch(jnp.zeros((n, f)), jnp.zeros((n, K)), jnp.zeros(n))
    )
    update: Any = inverse.donating(inverse.inverse_remove)
    compiled = update.lower(state, request).compile()
    memory = compiled.memory_analysis()
    matrix, few = 8 * f * f, 8 * f * (6 * n + 2 * symmetric_update.PANEL + K)
    assert memory.alias_size_in_bytes >= matrix
    assert memory.temp_size_in_bytes < min(few, matrix)


def test_deferred_requests_equal_immediate_ones(learned):
    within, state = learned
    later = deferred.deferred_start(state, capacity=13)
    requests = [
        (slice(0, 3), -1),
        (slice(3, 5), -1),
        (slice(0, 3), 1),
        (slice(8, 13), -1),
    ]
    for chosen, sign in requests:
        part = data.part(within, chosen)
        state = (ADD if sign > 0 else REMOVE)(state, part)
        later = (LATER_ADD if sign > 0 else LATER_REMOVE)(later, part)
        for name in ("weight", "count", "margin", "code"):
            got, want = getattr(later, name), getattr(state, name)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    assert int(later.used) == 13
    full = LATER_REMOVE(later, data.part(within, [20]))
    assert_unharmed(full, later, refusal.FULL)
    for got, want in zip(REFRESH(later), state, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    rest = np.setdiff1d(np.arange(40), [3, 4, *range(8, 13)])
    assert_is_fit(REFRESH(later), data.part(within, rest))


def test_float32_drift_stays_below_the_measured_bound():
    within = rows(60, 5, np.float32)
    state = ADD(start(jnp.float32, l2=1.0), within)
    for step in range(50):
        chosen = np.random.default_rng(step).permutation(60)[:5]
        part = data.part(within, chosen)
        state = ADD(REMOVE(state, part), part)
    assert {str(leaf.dtype) for leaf in state} == {"float32", "int32"}
    want = data.fresh(within, 1.0)
    error = np.abs(state.weight - want).max() / np.abs(want).max()
    assert error < 1e-5  # 100 requests; 9e-7 measured


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: inverse.inverse_start(F, K, l2=0.0), "l2 is 0.0"),
        (lambda: inverse.inverse_start(0, K, l2=1.0), "got 0 and"),
        (lambda: deferred.deferred_start(start(), capacity=0), "capacity is 0"),
        (lambda: inverse.inverse_add(start(), data.rows(2, f=F + 1, k=K)), "expected"),
        (
            lambda: deferred.deferred_add(
                deferred.deferred_start(start(), capacity=2), rows(3)
            ),
            "request of 3 rows",
        ),
    ],
    ids="l2 features capacity shape request".split(),
)
def test_impossible_arguments_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
