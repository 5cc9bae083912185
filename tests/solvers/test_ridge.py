"""One contract for all forms of ridge regression; the form that repairs itself."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from rows import F, K, fresh, join, part, rows, weighted

from unlearn_jax.solvers.refusal import RefusedError, check_applied
from unlearn_jax.solvers.ridge import (
    FORMS,
    add_class,
    remove_class,
    ridge_fit,
    ridge_form,
)
from unlearn_jax.solvers.ridge_kept import repair

L2 = 0.1
ALL = rows(40)
PROGRAMS = {
    name: {op: tiny.quick_jit(getattr(form, op)) for op in ("add", "remove", "replace")}
    for name, form in FORMS.items()
}
FIT = {
    name: tiny.quick_jit(partial(ridge_fit, l2=L2, form=name, block=20))
    for name in FORMS
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
# The form that is kept fits by the programs of the two that it is made of.
FITTED_FORM = pytest.mark.parametrize(
    "form",
    [pytest.param(f, marks=[pytest.mark.slow] * (f == "kept")) for f in FORMS],
)


def full(batch, most=48):
    """Padded to one shape, so that all requests of a form share their programs."""
    extra = most - len(batch.weights)
    hole = rows(extra)._replace(weights=np.zeros(extra))
    return join(batch, hole._replace(inputs=np.full((extra, F), np.nan)))


def learnt(form, batch):
    state = ridge_form(form).start(F, K, l2=L2)
    return check_applied(PROGRAMS[form]["add"](state, full(batch)))


@EVERY_FORM
def test_a_stream_ends_at_the_least_squares_of_what_is_left(form):
    do = PROGRAMS[form]
    random = np.random.default_rng(3)
    everything = weighted(rows(48, 8), random.uniform(0.5, 2, 48))
    state, within = ridge_form(form).start(F, K, l2=L2), np.zeros(48, bool)
    for _ in range(30):
        chosen = random.permutation(48)[: random.integers(1, 9)]
        new, old = chosen[~within[chosen]], chosen[within[chosen]]
        if len(new) and len(old):
            pair = (full(part(everything, i)) for i in (old, new))
            state = do["replace"](state, *pair)
        else:
            step = do["add" if len(new) else "remove"]
            state = step(state, full(part(everything, chosen)))
        check_applied(state)
        within[new], within[old] = True, False
    expected = fresh(part(everything, within), L2)
    np.testing.assert_allclose(state.weight, expected, rtol=1e-9)
    np.testing.assert_allclose(state.count, everything.weights[within].sum())


@EVERY_FORM
def test_what_was_never_learnt_is_refused_and_nothing_moves(form):
    state = learnt(form, ALL)
    strange = rows(2, 77)
    strange = strange._replace(inputs=9 * strange.inputs)
    after = PROGRAMS[form]["remove"](state, full(strange))
    with pytest.raises(RefusedError, match="not positive definite"):
        check_applied(after)
    np.testing.assert_array_equal(after.weight, state.weight)
    again = PROGRAMS[form]["remove"](after, full(part(ALL, slice(0, 4))))
    expected = fresh(part(ALL, slice(4, 40)), L2)
    np.testing.assert_allclose(check_applied(again).weight, expected, rtol=1e-9)


@EVERY_FORM
def test_classes_come_and_go(form):
    # Without its last class it has another for it, so that programs fit throughout.
    state = add_class(remove_class(learnt(form, ALL), 1), 0)
    wide = ALL._replace(targets=np.insert(ALL.targets[:, :1], 0, 0.0, axis=1))
    np.testing.assert_allclose(state.weight, fresh(wide, L2), rtol=1e-9, atol=1e-15)
    newer = rows(9, 4)._replace(targets=np.tile([1.0, 0.0], (9, 1)))
    state = check_applied(PROGRAMS[form]["add"](state, full(newer)))
    np.testing.assert_allclose(state.weight, fresh(join(wide, newer), L2), rtol=1e-9)
    state = check_applied(PROGRAMS[form]["remove"](state, full(newer)))
    one = ALL._replace(targets=ALL.targets[:, :1])
    np.testing.assert_allclose(remove_class(state, 0).weight, fresh(one, L2), rtol=1e-9)
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=f"position is {wrong}"):
            remove_class(state, wrong)


@FITTED_FORM
def test_fitting_in_blocks_is_fitting_at_once(form):
    np.testing.assert_allclose(FIT[form](ALL).weight, fresh(ALL, L2), rtol=1e-9)


def test_unknown_form_is_named():
    with pytest.raises(ValueError, match="choose from gram, inverse, kept"):
        ridge_form("both")


def test_drift_is_repaired_before_it_shows():
    state = learnt("kept", ALL)
    noise = np.random.default_rng(0).normal(size=(F, F))
    repaired = 0
    for size in (1e-13, 1e-6, 1e-2, 1.0):
        spread = size * float(jnp.abs(state.inverse).max())
        spoiled = state._replace(inverse=state.inverse + spread * (noise + noise.T))
        gone = full(part(ALL, slice(0, 4)))
        after = check_applied(PROGRAMS["kept"]["remove"](spoiled, gone))
        expected = fresh(part(ALL, slice(4, 40)), L2)
        np.testing.assert_allclose(after.weight, expected, rtol=1e-11)
        assert float(after.error) <= 1e-12
        assert int(after.repairs) >= repaired
        repaired = int(after.repairs)
    assert repaired == 1


def test_repair_gives_the_inverse_of_the_sums():
    state = learnt("kept", ALL)
    spoiled = state._replace(inverse=jnp.zeros_like(state.inverse))
    mended = tiny.quick_jit(repair)(spoiled)
    gram = ALL.inputs.T @ ALL.inputs + L2 * np.eye(F)
    np.testing.assert_allclose(mended.inverse, np.linalg.inv(gram), rtol=1e-9)
    np.testing.assert_allclose(mended.weight, state.weight, rtol=1e-13)


def test_rows_beyond_the_inverse_are_forgotten_through_the_sums():
    l2 = 1e-9
    big = ALL._replace(inputs=100 * ALL.inputs)
    state = ridge_form("kept").start(F, K, l2=l2)
    state = check_applied(PROGRAMS["kept"]["add"](state, full(big)))
    alone = ridge_form("inverse").start(F, K, l2=l2)
    alone = PROGRAMS["inverse"]["add"](alone, full(big))
    with pytest.raises(RefusedError, match="too large to be forgotten again"):
        check_applied(alone)
    gone = full(part(big, slice(1, 40)))
    after = check_applied(PROGRAMS["kept"]["remove"](state, gone))
    assert int(after.repairs) >= 1
    one = part(big, slice(0, 1))
    dual = np.linalg.solve(one.inputs @ one.inputs.T + l2 * np.eye(1), one.targets)
    np.testing.assert_allclose(after.weight, one.inputs.T @ dual, rtol=1e-7, atol=1e-15)


def one_row(*values):
    inputs = np.zeros((1, F))
    inputs[0, : len(values)] = values
    return rows(1)._replace(inputs=inputs)


@pytest.mark.parametrize("size", [1e2, 1e3, 1e4, 1e8])
@EVERY_FORM
def test_an_outlier_comes_and_goes_or_is_refused(form, size):
    do, outlier = PROGRAMS[form], full(one_row(size))
    state = ridge_form(form).start(F, K, l2=1.0)
    state = do["add"](do["add"](state, outlier), full(part(ALL, slice(0, 5))))
    after = do["remove"](state, outlier)
    if int(after.code) == 0:
        bound = 1e-3 if form == "inverse" else 1e-9
        expected = fresh(part(ALL, slice(0, 5)), 1.0)
        np.testing.assert_allclose(after.weight, expected, rtol=bound, atol=bound)
    else:
        assert form == "inverse" or size > 1e7
        np.testing.assert_array_equal(after.weight, state.weight)


def test_an_inverse_that_lost_a_direction_is_seen():
    do = PROGRAMS["kept"]
    state = ridge_form("kept").start(F, K, l2=1.0)
    huge = full(one_row(1e6)._replace(targets=np.zeros((1, K))))
    small = full(one_row(1.0)._replace(targets=np.full((1, K), 1e8)))
    state = check_applied(do["add"](check_applied(do["add"](state, huge)), small))
    np.testing.assert_allclose(state.weight[0], 1e8 / (1e12 + 2), rtol=1e-9)


@EVERY_FORM
def test_numbers_that_overflow_are_refused(form):
    state = learnt(form, ALL)
    for bad in (one_row(1e160), one_row(1.0)._replace(targets=np.full((1, K), np.inf))):
        after = PROGRAMS[form]["add"](state, full(bad))
        assert int(after.code) != 0
        np.testing.assert_array_equal(after.weight, state.weight)
        assert float(after.count) == 40


@FITTED_FORM
def test_a_fit_with_a_refused_block_learns_nothing(form):
    spoiled = ALL.inputs.copy()
    spoiled[3, 1] = np.nan
    state = FIT[form](ALL._replace(inputs=spoiled))
    assert int(state.code) != 0
    assert float(state.count) == 0
    assert not np.any(state.weight)
