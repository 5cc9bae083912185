"""One contract for all forms of ridge regression; the form that repairs itself."""

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
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


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
    state = add_class(learnt(form, ALL), 1)
    wide = ALL._replace(targets=np.insert(ALL.targets, 1, 0.0, axis=1))
    np.testing.assert_allclose(state.weight, fresh(wide, L2), rtol=1e-9, atol=1e-15)
    newer = rows(9, 4)._replace(targets=np.tile([0.0, 1.0, 0.0], (9, 1)))
    state = check_applied(PROGRAMS[form]["add"](state, newer))
    np.testing.assert_allclose(state.weight, fresh(join(wide, newer), L2), rtol=1e-9)
    state = check_applied(PROGRAMS[form]["remove"](state, newer))
    np.testing.assert_allclose(remove_class(state, 1).weight, fresh(ALL, L2), rtol=1e-9)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"position is {wrong}"):
            remove_class(state, wrong)


@EVERY_FORM
def test_fitting_in_blocks_is_fitting_at_once(form):
    fit = tiny.quick_jit(lambda batch: ridge_fit(batch, l2=L2, form=form, block=20))
    np.testing.assert_allclose(fit(ALL).weight, fresh(ALL, L2), rtol=1e-9)


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
    alone = check_applied(PROGRAMS["inverse"]["add"](alone, full(big)))
    gone = full(part(big, slice(1, 40)))
    assert int(PROGRAMS["inverse"]["remove"](alone, gone).code) != 0
    after = check_applied(PROGRAMS["kept"]["remove"](state, gone))
    assert int(after.repairs) >= 1
    one = part(big, slice(0, 1))
    dual = np.linalg.solve(one.inputs @ one.inputs.T + l2 * np.eye(1), one.targets)
    np.testing.assert_allclose(after.weight, one.inputs.T @ dual, rtol=1e-7, atol=1e-15)
