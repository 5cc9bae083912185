"""Datamodels: scikit-learn's ridge, both sides, members left out, blocks, recovery."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import tiny
from asserts import assert_trees_close
from sklearn.linear_model import Lasso, Ridge

from unlearn_jax.attribution.attribution import Evidence, Subsets
from unlearn_jax.attribution.curvature_influence import influence
from unlearn_jax.attribution.datamodel import (
    Datamodel,
    choose_l2,
    datamodel,
    datamodel_blocks,
    fit_datamodel,
    leave_one_out_errors,
    member_factors,
    member_shares,
    predict_outputs,
    predicted_change,
)
from unlearn_jax.attribution.influence import influence_on_parameters
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.attribution.sparse_datamodel import sparse_datamodel
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense
from unlearn_jax.models.model import Model
from unlearn_jax.solvers.lasso import RATIOS
from unlearn_jax.solvers.solution import REASONS
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables


@tiny.quick_jit
def fit(masks, outputs, l2):
    return fit_datamodel(masks, outputs, l2=l2)


def ensemble(m, n, q=5, seed=0, noise=0.3):
    random = np.random.default_rng(seed)
    masks = (random.random((m, n)) < 0.5).astype(np.float64)
    outputs = masks @ random.normal(size=(n, q)) + 2
    return masks, outputs + noise * random.normal(size=(m, q))


SIZES = {"few members": (12, 20), "many members": (30, 8)}


@pytest.fixture(params=SIZES, scope="module")
def case(request):
    return ensemble(*SIZES[request.param])


def penalty(masks, l2):
    centred = masks - masks.mean(0)
    return l2 * np.sum(centred**2) / len(masks)


def test_coefficients_equal_scikit_learn(case):
    masks, outputs = case
    ours = fit(masks, outputs, 0.3)
    theirs = Ridge(alpha=penalty(masks, 0.3), solver="cholesky").fit(masks, outputs)
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, rtol=1e-9)
    np.testing.assert_allclose(
        predict_outputs(ours, masks), theirs.predict(masks), rtol=1e-9
    )
    one = predict_outputs(ours, masks[3])
    np.testing.assert_allclose(one, theirs.predict(masks[3:4])[0], rtol=1e-9)


def test_errors_of_members_left_out_equal_refits(case):
    masks, outputs = case
    grid = (1e-2, 1.0, 30.0)
    weights = jnp.asarray([1.0, 0, 0, 2.0, 1.0])
    found = tiny.quick_jit(
        lambda a, b, w: leave_one_out_errors(a, b, grid=grid, weights=w)
    )(masks, outputs, weights)
    for error, l2 in zip(found, grid, strict=True):
        squares = []
        for i in range(len(masks)):
            rest = np.arange(len(masks)) != i
            model = Ridge(alpha=penalty(masks, l2), solver="cholesky")
            predicted = model.fit(masks[rest], outputs[rest]).predict(masks[[i]])
            squares.append((predicted[0] - outputs[i]) ** 2)
        truth = np.average(np.mean(squares, axis=0), weights=weights)
        np.testing.assert_allclose(error, truth, rtol=1e-8)


def test_noise_is_answered_by_a_larger_penalty():
    choose = tiny.quick_jit(lambda masks, outputs: choose_l2(masks, outputs))
    clear = choose(*ensemble(40, 10, noise=1e-3))
    noisy = choose(*ensemble(40, 10, noise=30.0))
    assert clear < 0.01 < 1 < noisy


def test_predicted_change_equals_coefficients_times_change(case):
    masks, outputs = case
    change = np.random.default_rng(1).normal(size=masks.shape[1])
    cube = np.stack([outputs, outputs**2], axis=2)
    for l2 in (0.3, None):

        @tiny.quick_jit
        def both(masks, cube, change, l2=l2):
            flat = cube.reshape(len(masks), -1)
            found = predicted_change(masks, cube, change, l2=l2)
            return found, fit_datamodel(masks, flat, l2=l2)

        found, flat = both(masks, cube, change)
        np.testing.assert_allclose(
            found, (flat.coef @ change).reshape(5, 2), rtol=1e-9, atol=1e-12
        )
    factors = member_factors(masks, change, l2=0.3)
    np.testing.assert_allclose(jnp.sum(factors), 0, atol=1e-12)
    shares = member_shares(masks, l2=0.3)
    np.testing.assert_allclose(shares @ change, factors, rtol=1e-9, atol=1e-13)


def test_blocks_from_disk_equal_the_whole(case, tmp_path):
    masks, outputs = case
    kept = np.memmap(tmp_path / "outputs", np.float64, "w+", shape=outputs.shape)
    kept[:] = outputs
    bits = masks.astype(np.uint8)
    for l2 in (0.3, None):
        chosen = choose_l2(masks, outputs) if l2 is None else l2
        whole = fit(masks, outputs, chosen)
        parts = list(datamodel_blocks(bits, kept, l2=l2, block_size=3))
        assert [p[0] for p in parts] == [slice(0, 3), slice(3, 5)]
        joined = Datamodel(
            *(np.concatenate(f) for f in zip(*(p[1] for p in parts), strict=True))
        )
        assert_trees_close(joined, whole, rtol=1e-8, atol=1e-12)


def test_lasso_forgets_what_plays_no_part():
    masks, outputs = ensemble(60, 10, noise=0.01)
    outputs = outputs[:, :1] * 0 + masks[:, 2:3] * 3.0 - masks[:, 7:8]
    sparse = tiny.quick_jit(lambda m, o: fit_datamodel(m, o, l1=1e-2))
    found = sparse(masks, outputs)
    assert np.flatnonzero(found.coef[0]).tolist() == [2, 7]
    np.testing.assert_allclose(found.coef[0, [2, 7]], [3, -1], atol=0.1)


def test_alike_masks_have_no_effect_and_dtype_is_kept():
    found = fit(np.ones((4, 6)), np.ones((4, 2), np.float32), jnp.float32(1e-3))
    assert not np.any(found.coef)
    assert found.coef.dtype == jnp.float32
    np.testing.assert_allclose(found.bias, 1)


def test_what_cannot_be_is_refused():
    masks, outputs = ensemble(12, 20)
    learner = tiny.learner("softmax")
    with pytest.raises(ValueError, match="one row per member"):
        fit_datamodel(masks[:5], outputs, l2=1.0)
    with pytest.raises(ValueError, match="expected a positive number"):
        fit_datamodel(masks, outputs, l2=0.0)
    with pytest.raises(ValueError, match="give one of them"):
        fit_datamodel(masks, outputs, l2=1.0, l1=1.0)
    with pytest.raises(ValueError, match="l2 must not be negative"):
        datamodel(learner, l2=-1.0)
    with pytest.raises(ValueError, match="choice_examples"):
        datamodel(learner, choice_examples=0)
    for wrong in ({"l1": 2.0}, {"held_out": 1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=r"expected|at least"):
            sparse_datamodel(learner, **wrong)
    data = tiny.examples()
    models = jax.vmap(learner.model.init)(jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match="no ensemble"):
        datamodel(learner).prepare(jax.random.key(0), Evidence(models), data)
    wrong = Evidence(models, ensemble=Subsets(jnp.ones((3, 5)), models))
    with pytest.raises(ValueError, match="one row per member"):
        datamodel(learner).prepare(jax.random.key(0), wrong, data)


def table_model():
    """A model that looks its outputs up: an ensemble with any outputs we like."""

    def apply(variables, inputs):
        return variables.params["table"][inputs]

    return Model(lambda key: None, apply, None, lambda _, inputs: inputs)


def test_sparse_attribution_chooses_by_members_kept_apart():
    """Two roads: path, choice and fit again in scikit-learn."""
    random = np.random.default_rng(0)
    masks = (random.random((30, 9)) < 0.5).astype(np.float64)
    table = 4 * masks[:, [2, 5]] - masks[:, [7, 8]] + random.normal(size=(30, 2))
    models = Variables({"table": jnp.asarray(np.stack([table, -table], 2))}, {})
    evidence = Evidence(models, ensemble=Subsets(jnp.asarray(masks), models))
    learner = Learner(table_model(), cross_entropy)
    train = Batch(jnp.zeros(9, jnp.int32), jnp.zeros(9, jnp.int32), jnp.ones(9))
    queries = Batch(jnp.arange(2), jnp.zeros(2, jnp.int32), jnp.ones(2))
    found = effects_of(
        sparse_datamodel(learner, held_out=0.2, tol=1e-12, max_steps=20_000),
        *(evidence, train, queries, component(0)),
    )
    for q in range(2):
        y = table[:, q]
        errors = []
        for ratio in RATIOS:
            part, values = masks[:24] - masks[:24].mean(0), y[:24]
            level = ratio * np.max(np.abs(part.T @ (values - values.mean()))) / 24
            fitted = Lasso(alpha=level, tol=1e-12).fit(masks[:24], values)
            errors.append(np.mean((fitted.predict(masks[24:]) - y[24:]) ** 2))
        assert np.argmin(errors) > 0
        best, centred = RATIOS[int(np.argmin(errors))], masks - masks.mean(0)
        level = best * np.max(np.abs(centred.T @ (y - y.mean()))) / 30
        theirs = Lasso(alpha=level, tol=1e-12).fit(masks, y).coef_
        np.testing.assert_allclose(found[q], theirs, atol=1e-5)
        assert int(np.argmax(found[q])) == (2, 5)[q]


@pytest.mark.parametrize(("most", "reason"), [(1, "out of steps"), (999, "converged")])
def test_sparse_attribution_tells_a_fit_that_was_cut_short(most, reason):
    """By effects and by change, with the gap that scikit-learn's answer leaves."""
    random = np.random.default_rng(4)
    masks = (random.random((30, 9)) < 0.5).astype(np.float64)
    table = 4 * masks[:, [2]] - masks[:, [7]] + random.normal(size=(30, 1))
    models = Variables({"table": jnp.asarray(table[:, :, None])}, {})
    evidence = Evidence(models, ensemble=Subsets(jnp.asarray(masks), models))
    train = Batch(jnp.zeros(9, jnp.int32), jnp.zeros(9, jnp.int32), jnp.ones(9))
    queries = Batch(jnp.arange(1), jnp.zeros(1, jnp.int32), jnp.ones(1))
    learner = Learner(table_model(), cross_entropy)
    made = sparse_datamodel(learner, l1=0.1, tol=1e-6, max_steps=most)

    @tiny.quick_jit
    def run(evidence, train, queries):
        state = made.prepare(jax.random.key(0), evidence, train)
        asked = made.effects_reported(state, train, queries, component(0))
        return asked, made.reported(state, train, queries, jnp.ones(9))

    (coef, told), (_, also) = run(evidence, train, queries)
    for each in (told, also):
        assert REASONS[int(each.code)].startswith(reason)
        assert 0 < int(each.steps) <= most
    x, y = masks - masks.mean(0), table[:, 0] - table[:, 0].mean()
    level = 0.1 * np.max(np.abs(x.T @ y)) / 30

    def loss(beta):
        return np.mean((y - x @ beta) ** 2) / 2 + level * np.sum(np.abs(beta))

    best = Lasso(alpha=level, tol=1e-13).fit(x, y).coef_
    above = (loss(coef[0]) - loss(best)) / (np.mean(y**2) / 2)
    assert above - 1e-7 <= float(told.residual)
    assert (float(told.residual) > 1e-6) == (most == 1)


@pytest.fixture(scope="module")
def regression():
    """Ridge, retrained exactly on weights a little off one: effects are linear."""
    learner, data, solve = problems.ridge()
    random = np.random.default_rng(3)
    full = jax.tree.map(lambda leaf: leaf[None], Variables(solve(np.ones(20)), {}))

    def around(scale, members=80):
        weights = 1 + scale * random.choice([-1.0, 1.0], size=(members, 20))
        params = [jax.tree.map(np.asarray, solve(row)) for row in weights]
        stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *params)
        return Subsets(jnp.asarray(weights), Variables(stacked, {}))

    queries = Batch(data.inputs[:4] + 0.5, data.targets[:4], jnp.ones(4))
    return learner, data, solve, full, around, queries


def effects_of(attribution, evidence, train, queries, output_fn):
    @tiny.quick_jit
    def run(key, evidence, train, queries):
        state = attribution.prepare(key, evidence, train)
        return attribution.effects(state, train, queries, output_fn)

    return run(jax.random.key(0), evidence, train, queries)


def test_on_small_changes_datamodel_influence_and_retraining_agree(regression):
    learner, data, solve, full, around, queries = regression
    exact = influence(learner, inverse="dense", damping=0.0)
    truth = effects_of(exact, Evidence(full), data, queries, component(1))
    size = float(jnp.max(jnp.abs(truth)))

    attribution = datamodel(learner, l2=1e-9)

    @tiny.quick_jit
    def regressed(evidence, train, queries):
        state = attribution.prepare(jax.random.key(0), evidence, train)
        return attribution.effects(state, train, queries, component(1))

    def error(scale):
        found = regressed(Evidence(full, ensemble=around(scale)), data, queries)
        return float(jnp.max(jnp.abs(found - truth))) / size

    # Odd signs, even curvature: what is left is of second order in the weights.
    assert error(1e-2) < 2e-2
    assert error(1e-4) < 2e-4

    step = 1e-4 * np.random.default_rng(0).normal(size=20)

    def outputs(params):
        return learner.model.apply(Variables(params, {}), queries.inputs)[:, 1]

    moved = outputs(solve(1 + step)) - outputs(tree_member(full.params))
    np.testing.assert_allclose(truth @ step, moved, rtol=1e-2, atol=1e-9)


def tree_member(stacked):
    return jax.tree.map(lambda leaf: leaf[0], stacked)


def test_exactly_linear_outputs_give_the_influence_back(regression):
    """A model whose outputs are linear in the weights: the first-order one."""
    learner, data, _, full, _, queries = regression
    exact = influence(learner, inverse="dense", damping=0.0)
    truth = effects_of(exact, Evidence(full), data, queries, component(0))
    params = tree_member(full.params)
    weights = np.random.default_rng(5).integers(0, 2, (50, 20)).astype(np.float64)
    objective = bind(learner.model, {}, learner.loss, learner.l2)

    @tiny.quick_jit
    def members(params, data, weights):
        matrix = dense(hessian(objective, params, data))

        def inverse(v):
            flat, back = jax.flatten_util.ravel_pytree(v)
            return back(jnp.linalg.solve(matrix, flat))

        def one(row):
            change = influence_on_parameters(objective, params, data, row - 1, inverse)
            return jax.tree.map(jnp.add, params, change)

        return jax.lax.map(one, weights)

    models = Variables(members(params, data, jnp.asarray(weights)), {})
    evidence = Evidence(full, ensemble=Subsets(jnp.asarray(weights), models))
    found = effects_of(
        datamodel(learner, l2=1e-10), evidence, data, queries, component(0)
    )
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-9)
