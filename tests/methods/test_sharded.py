"""Shards and slices: what forgetting leaves never saw the rows, to the bit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import COUNT, examples, learner

from unlearn_jax.curvature.layers import layers_of
from unlearn_jax.data.batch import from_arrays, take
from unlearn_jax.methods.shard_layout import shard_layout
from unlearn_jax.methods.shard_votes import together
from unlearn_jax.methods.sisa import sisa
from unlearn_jax.methods.stagewise import stagewise
from unlearn_jax.models import MODELS
from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.storage.contents import Contents
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import squared_error

ROWS = examples()
NET = learner("mlp", epochs=3)
CHAINS = {
    "sisa": sisa(NET, ROWS, COUNT, shards=3, slices=2),
    "stagewise": stagewise(NET, ROWS, COUNT, shards=3, slices=2, orders=2),
    "cumulative": stagewise(
        NET, ROWS, COUNT, shards=3, slices=2, orders=2, cumulative=True, keep_head=False
    ),
}


def learnt(ours, numbers=range(COUNT)):
    numbers = np.asarray(numbers)
    rows = take(ROWS, numbers)
    return ours.learn(ours.start(), numbers, rows.inputs, rows.targets)


def bits(tree):
    return [
        (a.dtype, a.shape, a.tobytes()) for a in map(np.asarray, jax.tree.leaves(tree))
    ]


@pytest.fixture(scope="module", params=CHAINS)
def whole(request):
    """Models of all rows; its checkpoints are copied by whoever changes them."""
    ours, contents = CHAINS[request.param], Contents()
    state = learnt(ours)
    served = ours.models(state, contents)
    return ours, state, contents, served


def copied(contents):
    other = Contents()
    other._memory = dict(contents._memory)
    return other


def test_what_forgetting_leaves_never_saw_the_rows(whole):
    ours, state, contents, served = whole
    kept, gone = copied(contents), np.array([0, 7, 30])
    for number in gone:
        state = ours.forget(state, np.array([number]))
        left = ours.models(state, kept)
    never = learnt(ours, np.setdiff1d(np.arange(COUNT), gone))
    never = never._replace(spent=state.spent)
    alone = Contents()
    fresh = ours.models(never, alone)
    assert bits(state) == bits(never)
    assert bits(left) == bits(fresh)
    assert bits(left) != bits(served)
    assert (
        set(kept._memory)
        == set(alone._memory)
        == set(ours.names(state)[ours.names(state) != ""])
    )
    for name, arrays in alone._memory.items():
        assert bits(dict(kept._memory[name])) == bits(dict(arrays))


def test_a_deletion_trains_the_stages_from_its_slice_on_or_none(whole):
    ours, state, contents, _ = whole
    layout = ours.plan.layout
    number = np.flatnonzero((layout.shard == 1) & (layout.slice == 1))[:1]
    before, after = ours.names(state), ours.names(ours.forget(state, number))
    changed = before != after
    assert not changed[[0, 2]].any()
    if ours.plan.deactivates:
        # Orders 0, 1 and 1, 0: the second slice ends a stage of one, both of the other.
        assert np.array_equal(changed[1], [[False, True], [True, True]])
        assert np.all(after[changed] == "")
    else:
        assert np.array_equal(changed[1], [[False, True]])
        assert np.all(after != "")
    kept = copied(contents)
    served = ours.models(ours.forget(state, number), kept)
    assert np.array_equal(served.stages, [2, 1 if ours.plan.deactivates else 2, 2])
    new = set(kept._memory) - set(contents._memory)
    assert new == set(after[changed]) - {""}


def test_a_stage_of_sisa_is_the_library_fit_on_the_slices_so_far():
    ours = CHAINS["sisa"]
    served = ours.models(learnt(ours), Contents())
    assert ours.plan.learner.recipe.epochs == 2  # 2 E / (R + 1)
    for shard in range(3):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), shard), 0)
        members = ours.plan.layout.members[shard]
        rows = take(ROWS, members)
        variables = ours.plan.learner.model.init(jax.random.fold_in(key, 0))
        for stage in range(2):
            seen = ours.plan.layout.slice[members] <= stage
            part = rows._replace(weights=seen.astype(float))
            variables = fit(
                jax.random.fold_in(key, stage + 1),
                ours.plan.learner,
                part,
                start=variables,
            )
        expected = jax.tree.map(lambda x, s=shard: x[s], served.variables)
        for a, b in zip(*map(jax.tree.leaves, (variables, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


def test_a_stage_moves_its_layer_and_the_head_alone():
    net = MODELS["mlp"]((5,), 3, widths=(4, 4, 4), dtype=jnp.float64)
    start = net.init(jax.random.key(5))
    deep = NET._replace(model=net)
    for keep_head in (True, False):
        ours = stagewise(
            deep, ROWS, COUNT, start=start, shards=1, slices=3, keep_head=keep_head
        )
        contents = Contents()
        names = ours.names(learnt(ours))[0, 0]
        ours.models(learnt(ours), contents)
        layers = jax.tree.leaves(layers_of(net.apply, start, ROWS.inputs[:2]))
        chain = [dict(enumerate(jax.tree.leaves(start)))]
        chain += [{int(i): x for i, x in contents.load(n).items()} for n in names]
        for stage, (old, new) in enumerate(itertools.pairwise(chain)):
            moved = {layers[i] for i in old if bits(old[i]) != bits(new[i])}
            assert moved == {3 - stage} | ({3} if keep_head else set())


def test_a_spent_shard_is_silent_until_it_is_renewed():
    ours = stagewise(NET, ROWS, COUNT, shards=2, slices=2, orders=1)
    contents, state = Contents(), learnt(ours)
    layout = ours.plan.layout
    for shard in range(2):
        first = np.flatnonzero((layout.shard == shard) & (layout.slice == 0))[:1]
        state = ours.forget(state, first)
        served = ours.models(state, contents)
        assert served.votes[shard] == 0
    with pytest.raises(RefusedError, match="no shard has a model left"):
        ours.predict(served, ROWS.inputs)
    assert not contents._memory
    served = ours.models(ours.renew(state), contents)
    assert np.array_equal(served.votes, [23, 23])
    assert np.array_equal(served.stages, [2, 2])


def test_a_class_that_is_all_of_a_shard_goes_with_its_vote():
    order = np.argsort(ROWS.targets, kind="stable")
    rows = take(ROWS, order)
    ours = sisa(NET, rows, COUNT, shards=3, slices=2, drawn=False)
    state = ours.learn(ours.start(), np.arange(COUNT), rows.inputs, rows.targets)
    contents = Contents()
    state = ours.forget(state, np.flatnonzero(rows.targets == 1))
    served = ours.models(state, contents)
    assert np.array_equal(served.votes, [16, 0, 16])
    scores = ours.predict(served, rows.inputs)
    assert np.all(np.isfinite(scores))
    assert not np.any(scores.argmax(1) == 1)
    nobody = ours.forget(state, np.flatnonzero(rows.targets != 1))
    assert bits(nobody) == bits(ours.start())
    with pytest.raises(RefusedError, match="no shard has a model"):
        ours.predict(ours.models(nobody, contents), rows.inputs)


def test_votes_are_those_counted_by_hand():
    outputs = np.array([[[0.0, 2.0]], [[1.0, 0.0]], [[9.0, 0.0]]])
    votes = np.array([3.0, 1.0, 0.0])
    p = [np.exp([0.0, 2.0]), np.exp([1.0, 0.0])]
    p = [x / x.sum() for x in p]
    soft = together(outputs, votes, labelled=True, majority=False)
    np.testing.assert_allclose(soft[0], (3 * p[0] + p[1]) / 4)
    hard = together(outputs, votes, labelled=True, majority=True)
    np.testing.assert_allclose(hard[0], [0.25, 0.75])
    plain = together(outputs, votes > 0, labelled=False, majority=False)
    np.testing.assert_allclose(plain[0], [0.5, 1.0])


def test_places_depend_on_numbers_alone_and_are_even():
    layout = shard_layout(20, 3, 2, seed=4)
    counts = [
        np.sum((layout.shard == s) & (layout.slice == r))
        for s in range(3)
        for r in (0, 1)
    ]
    assert sorted(counts) == [3, 3, 3, 3, 4, 4]
    for row in range(20):
        at = np.flatnonzero(layout.members[layout.shard[row]] == row)
        assert layout.slices[layout.shard[row], at] == layout.slice[row]
    assert np.array_equal(
        shard_layout(6, 2, 1, drawn=False).members, [[0, 1, 2], [3, 4, 5]]
    )


def numbers(*found):
    return np.array(found)


def checked(inputs, targets):
    CHAINS["sisa"].check(numbers(1), inputs, targets)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sisa(NET, ROWS, 5, shards=6), "6 shards of 4 slices for 5 rows"),
        (lambda: stagewise(NET, ROWS, COUNT, slices=3), "a model of 2 layers"),
        (lambda: stagewise(NET, ROWS, COUNT, slices=2, orders=3), "3 orders of 2"),
        (
            lambda: stagewise(NET, ROWS, COUNT, slices=2, risk=[0.5, 0.3, 0.2]),
            "3 entries for 2 slices",
        ),
        (
            lambda: CHAINS["sisa"].forget(learnt(CHAINS["sisa"], [1]), numbers(COUNT)),
            "row number 48, expected 0 to 47",
        ),
        (
            lambda: CHAINS["sisa"].forget(learnt(CHAINS["sisa"], [1]), numbers(2)),
            "row 2 is not there",
        ),
        (
            lambda: CHAINS["sisa"].forget(learnt(CHAINS["sisa"], [1]), numbers(1, 1)),
            "row number 1 more than once",
        ),
        (lambda: CHAINS["sisa"].check(numbers(1.5)), "expected a list of integers"),
        (lambda: CHAINS["sisa"].check(numbers()), "expected a list of integers"),
        (
            lambda: CHAINS["sisa"].learn(
                learnt(CHAINS["sisa"], [1]),
                numbers(1),
                ROWS.inputs[:1],
                ROWS.targets[:1],
            ),
            "row 1 is there already",
        ),
        (
            lambda: CHAINS["sisa"].check(
                numbers(1), ROWS.inputs[:1, :2], ROWS.targets[:1]
            ),
            r"expected float64 of shape \('n', 5\)",
        ),
        (
            lambda: checked(ROWS.inputs[:2], ROWS.targets[:2]),
            "1 row numbers and 2 inputs",
        ),
        (
            lambda: checked(ROWS.inputs[:1] * np.nan, ROWS.targets[:1]),
            "NaN",
        ),
        (
            lambda: CHAINS["sisa"].check(
                numbers(1), ROWS.inputs[:1], ROWS.targets[:1] + 3
            ),
            "rows to learn",
        ),
        (
            lambda: sisa(
                learner("mlp", loss=squared_error),
                from_arrays(ROWS.inputs, np.ones((COUNT, 3))),
                COUNT,
                majority=True,
            ),
            "majority was asked for a regression",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
