"""The primitive of editing: two roads and numpy's, sums without history, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from edits import D, keys, maps, normal, normal_change, same_bits, whole

from unlearn_jax.methods.editing.maps import outputs, stacked, unstacked
from unlearn_jax.methods.editing.rows import (
    anchor_rows,
    edit_rows,
    join_rows,
    preserve_rows,
)
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.spans import least_used, null_space
from unlearn_jax.methods.editing.state import (
    edit_add,
    edit_add_sums,
    edit_remove,
    edit_remove_sums,
    edit_start,
    edited,
)
from unlearn_jax.solvers.refusal import NOT_FINITE, RefusedError, check_applied
from unlearn_jax.types import Batch

MAPS = maps()
L2, MOST = 0.1, 20
ROADS = {
    road: tiny.quick_jit(lambda tree, rows, r=road: edit(tree, rows, l2=L2, road=r))
    for road in ("primal", "dual")
}
_ADD, _REMOVE = tiny.quick_jit(edit_add), tiny.quick_jit(edit_remove)


def full(rows):
    """Padded to one shape with rows that are not there, so that programs are few."""
    extra = MOST - len(rows.weights)
    holes = (jnp.full((extra, each.shape[1]), jnp.nan) for each in rows[:2])
    return join_rows(rows, Batch(*holes, jnp.zeros(extra)))


def add(state, rows):
    return _ADD(state, full(rows))


def remove(state, rows):
    return _REMOVE(state, full(rows))


def by_road(road, rows):
    return whole(ROADS[road](MAPS, full(rows)))


def request(seed, n=3):
    """Rows of one shape, so that all requests share two programs."""
    moved = anchor_rows(MAPS, keys(n, seed), keys(1, seed + 50), 1.0)
    return join_rows(moved, preserve_rows(MAPS, keys(n, seed + 99), 0.3))


def test_maps_side_by_side_and_back():
    matrix = stacked(MAPS)
    assert matrix.shape == (D, 13)
    assert same_bits(unstacked(matrix, MAPS), MAPS)
    each = [keys(5) @ leaf for leaf in jax.tree.leaves(MAPS)]
    np.testing.assert_allclose(outputs(MAPS, keys(5)), np.concatenate(each, 1))


@pytest.mark.parametrize("n", [2, 12])
def test_primal_dual_and_normal_equations_agree(n):
    rows = edit_rows(MAPS, keys(n), keys(n, 7, 13), np.linspace(0.1, 2, n))
    expected = normal(MAPS, rows, L2)
    for road in ROADS:
        found = by_road(road, rows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_minimiser_has_no_slope():
    rows = request(3)
    keys_, shifts, weights = rows

    def loss(tree):
        change = stacked(tree) - stacked(MAPS)
        missing = jnp.sum(jnp.square(keys_ @ change - shifts), axis=1)
        return weights @ missing + 0.2 * jnp.sum(change**2)

    slope = jax.grad(loss)(edit(MAPS, rows, l2=0.2, road="dual"))
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(slope)) < 1e-12


def test_outputs_reach_their_targets_as_the_ridge_goes_to_zero():
    targets = keys(4, 7, 13)
    rows = edit_rows(MAPS, keys(4), targets)
    missing = [
        np.max(np.abs(outputs(edit(MAPS, rows, l2=l2), keys(4)) - targets))
        for l2 in (1e-2, 1e-4, 1e-6)
    ]
    ratios = np.divide(missing[1:], missing[:-1])
    np.testing.assert_allclose(ratios, 0.01, rtol=0.2)  # in proportion to the ridge
    assert missing[-1] < 1e-4


def test_a_sequence_is_the_batch_and_a_withdrawn_request_was_never_made():
    one, two, three = request(1), request(2), request(3)
    start = edit_start(MAPS, l2=0.1)
    state = add(add(add(start, one), two), three)
    assert bool(state.ridge.exact)
    batch = add(start, join_rows(three, one, two))
    assert same_bits(state, check_applied(batch.ridge) and batch)
    gone = remove(state, two)
    assert same_bits(gone, add(add(start, three), one))
    nothing = remove(remove(gone, one), three)
    assert same_bits(edited(nothing), MAPS)
    assert same_bits(nothing, start)
    rounded = whole(edited(state)) - normal(MAPS, join_rows(one, two, three), 0.1)
    assert 0 < np.max(np.abs(rounded)) < 1e-5  # what 20 digits of a key move


def test_sums_of_many_captions_are_preserved_rows():
    captions = preserve_rows(MAPS, keys(6, 11), 0.5)
    start = edit_start(MAPS, l2=0.1)
    cached = add(start, captions)
    assert same_bits(edited(cached), MAPS)
    state = tiny.quick_jit(edit_add_sums)(add(start, request(1, 3)), cached)
    expected = normal(MAPS, join_rows(request(1, 3), captions), 0.1)
    np.testing.assert_allclose(whole(edited(state)), expected, atol=1e-5)
    less = tiny.quick_jit(edit_remove_sums)(state, cached)
    assert same_bits(less, add(start, request(1, 3)))


def test_float32_maps_stay_float32_and_near():
    tree = maps(dtype=np.float32)
    rows = anchor_rows(tree, keys(3), keys(1, 5))
    for program in ROADS.values():
        found = program(tree, rows)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.float32.dtype}
        np.testing.assert_allclose(whole(found), normal(tree, rows, L2), atol=1e-4)


def test_many_edits_at_once_by_vmap():
    def one(key):
        return edit(MAPS, anchor_rows(MAPS, key[None], keys(1, 5)), l2=0.1, road="dual")

    found = jax.jit(jax.vmap(one))(keys(3))
    for place, key in enumerate(keys(3)):
        alone = jax.tree.map(lambda leaf, i=place: leaf[i], found)
        np.testing.assert_allclose(whole(alone), whole(one(key)), atol=1e-13)


def test_edits_in_the_null_space_leave_preserved_outputs():
    preserved, moved = keys(5, 21), anchor_rows(MAPS, keys(2), keys(1, 5))
    basis = null_space(preserved)
    assert basis.shape == (D, 3)
    before = outputs(MAPS, preserved)
    found = edit(MAPS, moved, l2=1e-9, basis=basis)
    np.testing.assert_allclose(outputs(found, preserved), before, atol=1e-13)
    target = outputs(MAPS, keys(2)) + moved.targets
    np.testing.assert_allclose(outputs(found, keys(2)), target, atol=1e-6)
    # No constraint is met exactly by weights, once rows outnumber the dimensions.
    wide = keys(7, 22)
    soft = edit(MAPS, join_rows(moved, preserve_rows(MAPS, wide)), l2=1e-6, road="dual")
    drift = np.max(np.abs(outputs(soft, wide) - outputs(MAPS, wide)))
    assert drift > 0.1
    state = add(add(edit_start(MAPS, l2=0.1, basis=basis), request(1)), request(2))
    np.testing.assert_allclose(outputs(edited(state), preserved), before, atol=1e-13)
    coordinates = join_rows(request(1), request(2))
    short = coordinates._replace(inputs=coordinates.inputs @ basis)
    change = basis @ normal_change(short, 0.1)
    np.testing.assert_allclose(whole(edited(state)) - whole(MAPS), change, atol=1e-5)


def test_an_edit_that_is_not_refined_is_the_same_to_the_condition():
    rows = join_rows(request(1), request(2), preserve_rows(MAPS, keys(9, 3)))
    plain = edit(MAPS, rows, l2=0.1, road="primal", refine=False)
    np.testing.assert_allclose(whole(plain), normal(MAPS, rows, 0.1), rtol=1e-10)
    # Of the sums alone: what was withdrawn was never there, to the last bit.
    once = {"refine": False}
    state = edit_add(edit_start(MAPS, l2=0.1), request(1), **once)
    again = edit_remove(edit_add(state, request(2), **once), request(2), **once)
    same_bits(edited(again), edited(state))
    assert np.isnan(float(again.ridge.error))
    # Refused requests change nothing but the code.
    wrong = request(2)._replace(inputs=np.full_like(request(2).inputs, np.nan))
    refused = edit_add(state, wrong, **once)
    assert int(refused.ridge.code) != int(state.ridge.code)
    same_bits(edited(refused), edited(state))


def test_the_least_used_directions_are_the_free_ones_and_then_the_next():
    preserved = keys(5, 21)
    free = null_space(preserved)
    for count in (2, 3, 5):
        basis = np.asarray(least_used(preserved, count))
        np.testing.assert_allclose(basis.T @ basis, np.eye(count), atol=1e-12)
        inside = np.linalg.norm(free.T @ basis) ** 2
        assert inside == pytest.approx(min(count, 3), abs=1e-12)
    wide = keys(20, 22)
    _, values, directions = np.linalg.svd(wide)
    basis = np.asarray(jax.jit(lambda c: least_used(c, 3))(wide))
    agree = np.abs(np.diag(directions[::-1][:3] @ basis[:, ::-1]))
    np.testing.assert_allclose(agree, 1, atol=1e-10)
    moved = anchor_rows(MAPS, keys(2), keys(1, 5))
    found = edit(MAPS, moved, l2=1e-9, basis=basis)
    drift = np.linalg.norm(outputs(found, wide) - outputs(MAPS, wide))
    size = np.linalg.norm(whole(found) - whole(MAPS))
    assert 0 < drift <= values[-3] * size * (1 + 1e-9)
    # A row of weight zero is not there, whatever it holds.
    absent = np.where(
        np.arange(6)[:, None] < 5, np.append(preserved, preserved[:1], 0), 9
    )
    weighted = least_used(absent, 3, np.array([1.0] * 5 + [0.0]))
    np.testing.assert_allclose(preserved @ np.asarray(weighted), 0, atol=1e-12)


def test_the_threshold_bounds_what_preserved_outputs_move():
    preserved = keys(12, 23) * np.geomspace(1, 1e-4, D)
    with pytest.raises(ValueError, match="no edit is left"):
        null_space(preserved)
    basis = null_space(preserved, threshold=1e-2)
    assert 0 < basis.shape[1] < D
    found = edit(MAPS, request(1), l2=1e-3, basis=basis, road="dual")
    change = whole(found) - whole(MAPS)
    moved = np.linalg.norm(preserved @ change, 2)
    bound = 1e-2 * np.linalg.norm(preserved, 2) * np.linalg.norm(change, 2)
    assert 0 < moved <= bound
    absent = null_space(
        np.concatenate([keys(2), np.full((1, D), np.nan)]), np.array([1.0, 2.0, 0.0])
    )
    assert absent.shape == (D, 6)


def test_a_request_that_cannot_be_told_is_refused_and_harms_nothing():
    state = add(edit_start(MAPS, l2=0.1), request(1))
    bad = request(2)
    bad = bad._replace(targets=bad.targets.at[0, 0].set(jnp.nan))
    after = add(state, bad)
    assert int(after.ridge.code) == NOT_FINITE
    assert same_bits(edited(after), edited(state))
    with pytest.raises(RefusedError, match="not finite"):
        check_applied(after.ridge)
    for road in ROADS:
        assert np.all(np.isnan(by_road(road, bad)[:, 0]))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: edit(MAPS, request(1), l2=0.0), "l2 is 0.0"),
        (lambda: edit(MAPS, request(1), l2=-1.0, road="dual"), "l2 is -1.0"),
        (lambda: edit(MAPS, request(1), l2=0.1, road="both"), "road is 'both'"),
        (lambda: edit({}, request(1), l2=0.1), "got no linear map"),
        (lambda: outputs({"a": jnp.ones((2, 3, 4))}, keys(1)), "read the same d"),
        (lambda: outputs([jnp.ones((2, 3)), jnp.ones((3, 3))], keys(1)), "same d"),
        (lambda: preserve_rows(MAPS, keys(2, d=5)), r"expected keys \(n, 8\)"),
        (lambda: preserve_rows(MAPS, keys(0)), "got no rows"),
        (lambda: join_rows(None, None), "got no rows"),
        (lambda: anchor_rows(MAPS, keys(3), keys(2)), "got 2 anchors for 3 keys"),
        (lambda: edit_rows(MAPS, keys(3), keys(3)), r"expected targets \(3, 13\)"),
        (lambda: preserve_rows(MAPS, keys(3), -1.0), "negative or NaN"),
        (lambda: preserve_rows(MAPS, keys(3), np.ones(2)), "expected one weight"),
        (lambda: null_space(keys(D)), "span all 8 dimensions"),
        (lambda: least_used(keys(3), D + 1), "count is 9, expected 1 to 8"),
        (lambda: null_space(keys(0)), "n at least 1"),
        (lambda: null_space(keys(2), threshold=1.0), "threshold is 1.0"),
        (lambda: null_space(keys(2) * np.nan), "NaN or infinite"),
        (lambda: edit_start(MAPS, l2=0.1, basis=np.eye(3)), r"expected a basis \(8"),
    ],
)
def test_bad_input_is_one_sentence(wrong, match):
    with pytest.raises(ValueError, match=match):
        wrong()
