"""Influence as an attribution: dense formulas, retraining, EK-FAC where it is exact."""

from dataclasses import replace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import tiny

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.curvature_influence import influence
from unlearn_jax.attribution.ekfac_influence import ekfac_influence
from unlearn_jax.attribution.output_functions import component, margin
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import mean_eigenvalue
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import dense
from unlearn_jax.models.model import Model
from unlearn_jax.solvers.solution import REASONS
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch, Variables


def effects_of(attribution, models, train, queries, output_fn):
    @tiny.quick_jit
    def run(key, models, train, queries):
        state = attribution.prepare(key, Evidence(models), train)
        return attribution.effects(state, train, queries, output_fn)

    return run(jax.random.key(0), models, train, queries)


def one_model(params):
    return Variables(jax.tree.map(lambda leaf: leaf[None], params), {})


def dense_effects(objective, params, train, queries, matrix):
    """−∇f_q matrix⁻¹ (∇ℓₙ + l2 θ) / W with gradients formed one by one."""

    def rows(value, batch):
        def one(x, y):
            slope = jax.grad(
                lambda p: value(objective.predict(p, x[None]), y[None])[0]
            )(params)
            return jax.flatten_util.ravel_pytree(slope)[0]

        return jax.vmap(one)(batch.inputs, batch.targets)

    theta = jax.flatten_util.ravel_pytree(params)[0]
    pulls = rows(objective.loss, train) + objective.l2 * theta[None]
    moves = jnp.linalg.solve(matrix, pulls.T)
    return -rows(margin, queries) @ moves / jnp.sum(train.weights)


@pytest.fixture(scope="module")
def orthogonal():
    """Two classes, a linear layer, and inputs along the axes.

    An input along axis i gives the Fisher block qᵢ (1 − qᵢ) [[1, −1], [−1, 1]] of the
    weights of that axis and nothing elsewhere. So all blocks share the eigenvectors of
    K-FAC, the axes and (1, ±1): EK-FAC, which measures the variances along them, is
    exact. K-FAC, which takes them as products, is not, since qᵢ differs by axis.
    """
    axes = np.arange(12) % 4
    inputs = np.eye(4)[axes] * (1.0 + 0.3 * np.arange(12))[:, None]
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 12).astype(np.int32)
    weights = 0.5 + random.random(12)
    train = jax.tree.map(jnp.asarray, Batch(inputs, labels, weights))
    queries = Batch(
        jnp.asarray(random.normal(size=(5, 4))), jnp.arange(5) % 2, jnp.ones(5)
    )

    def apply(variables, inputs):
        return inputs @ variables.params["kernel"]

    model = Model(lambda key: None, apply, None, lambda _, inputs: inputs)
    params = {"kernel": jnp.asarray(random.normal(size=(4, 2)))}
    learner = Learner(model, cross_entropy, 0.2, Recipe(weight_decay=0.0))
    return learner, params, train, queries


def test_ekfac_equals_the_dense_formula_where_it_is_exact(orthogonal):
    learner, params, train, queries = orthogonal
    objective = bind(learner.model, {}, learner.loss, learner.l2)

    @tiny.quick_jit
    def truth(params, train, queries):
        bare = objective._replace(l2=0.0)
        fisher = dense(gauss_newton(bare, params, train))
        size = len(fisher)
        damping = objective.l2 + 0.3 * jnp.trace(fisher) / size
        matrix = fisher + damping * jnp.eye(size)
        simple = kfac(None, bare, params, train, labels="exact")
        inverse = kronecker_inverse(simple, damping=damping)
        first = jnp.zeros(size).at[0].set(1.0).reshape(4, 2)
        miss = inverse({"kernel": first})["kernel"].ravel()
        miss = miss - jnp.linalg.solve(matrix, first.ravel())
        return dense_effects(objective, params, train, queries, matrix), miss

    expected, miss = truth(params, train, queries)
    found = effects_of(
        ekfac_influence(learner, damping=0.3, labels="exact", query_batch_size=2),
        one_model(params),
        train,
        queries,
        margin,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert float(jnp.max(jnp.abs(miss))) > 1e-3


@pytest.fixture(scope="module")
def net():
    learner = tiny.learner("mlp", l2=0.05)
    train = jax.tree.map(jnp.asarray, tiny.examples(count=20))
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=7, seed=4))
    models = jax.vmap(learner.model.init)(jax.random.split(jax.random.key(1), 2))
    return learner, models, train, queries


def test_pairs_equal_solves_query_by_query_and_separable_terms_come_near(net):
    """Two roads: scores from factors, and −∇f_q applied to solved directions."""
    learner, models, train, queries = net
    first = jax.tree.map(lambda leaf: leaf[:1], models)
    made = {
        rank: ekfac_influence(
            learner, damping=0.2, labels="exact", rank=rank, batch_size=6
        )
        for rank in (None, 4)
    }

    @tiny.quick_jit
    def by_pairs(models, train, queries):
        state = made[None].prepare(jax.random.key(0), Evidence(models), train)
        matrix = tree.member(state.inverses, 0)
        found = {
            rank: one.effects(state, train, queries, margin)
            for rank, one in made.items()
        }
        return mean_eigenvalue(matrix), list(found.values())

    unit, (exact, separable) = by_pairs(first, train, queries)
    damping = 0.2 * float(unit)
    solves = influence(learner, inverse="ekfac", damping=damping, query_batch_size=3)
    expected = effects_of(solves, first, train, queries, margin)
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-13)

    error = jnp.linalg.norm(separable - exact) / jnp.linalg.norm(exact)
    assert 1e-8 < float(error) < 1e-2


def test_effects_are_means_over_models_and_follow_the_chain_rule(net):
    learner, models, train, queries = net
    attribution = influence(learner, inverse="dense", damping=0.1)

    def combined(outputs, targets):
        return 2 * outputs[:, 0] - outputs[:, 2]

    @tiny.quick_jit
    def run(models, train, queries):
        state = attribution.prepare(jax.random.key(0), Evidence(models), train)
        wanted = (component(0), component(2), combined)
        return [attribution.effects(state, train, queries, f) for f in wanted]

    both = run(models, train, queries)
    np.testing.assert_allclose(both[2], 2 * both[0] - both[1], rtol=1e-9, atol=1e-13)
    swapped = jax.tree.map(lambda leaf: leaf[jnp.asarray([0, 0])], models)
    other = jax.tree.map(lambda leaf: leaf[jnp.asarray([1, 1])], models)
    one, two = (run(m, train, queries)[0] for m in (swapped, other))
    np.testing.assert_allclose(both[0], (one + two) / 2, rtol=1e-10, atol=1e-14)
    assert float(jnp.max(jnp.abs(one - two))) > 1e-3


def minimum_of(objective, start):
    """Newton's method to the minimum for any weights, written out."""

    @tiny.quick_jit
    def solve(batch):
        flat, back = jax.flatten_util.ravel_pytree(start)

        def risk(theta, batch):
            return objective.risk(back(theta), batch)

        def newton(_, theta):
            matrix = jax.hessian(risk)(theta, batch)
            return theta - jnp.linalg.solve(matrix, jax.grad(risk)(theta, batch))

        return back(jax.lax.fori_loop(0, 12, newton, flat))

    return solve


@pytest.mark.parametrize("kind", ["ridge", "softmax"])
def test_error_against_retraining_falls_with_the_square_of_the_weight(kind):
    learner, data = problems.ridge()[:2] if kind == "ridge" else problems.softmax()
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    solve = minimum_of(objective, learner.model.init(jax.random.key(0)).params)
    params = solve(data)
    queries = Batch(data.inputs[:6] + 0.3, data.targets[:6], jnp.ones(6))
    attribution = influence(learner, damping=0.0, tol=1e-12)

    @tiny.quick_jit
    def predict(models, train, queries, change):
        state = attribution.prepare(jax.random.key(0), Evidence(models), train)
        return attribution.change(state, train, queries, change)

    def outputs(at):
        return objective.predict(at, queries.inputs)

    def gap(share):
        change = jnp.zeros(len(data.weights)).at[3].set(-share)
        truth = outputs(solve(data._replace(weights=data.weights + change)))
        found = predict(one_model(params), data, queries, change)
        error = jnp.max(jnp.abs(found - (truth - outputs(params))))
        return float(error), float(jnp.max(jnp.abs(found)))

    (large, moved), (small, _) = gap(0.04), gap(0.02)
    assert large < 0.05 * moved
    np.testing.assert_allclose(large / small, 4.0, rtol=0.1)


def test_what_cannot_be_is_refused():
    learner = tiny.learner("softmax")
    for make, wrong, told in (
        (influence, {"inverse": "magic"}, "inverse 'magic' is unknown"),
        (influence, {"damping": -1.0}, "damping must not be negative"),
        (influence, {"query_batch_size": 0}, "query_batch_size must be"),
        (ekfac_influence, {"damping": 0.0}, "a positive share"),
        (ekfac_influence, {"labels": "all"}, "labels 'all' is unknown"),
        (ekfac_influence, {"rank": 0}, "rank must be at least 1"),
    ):
        with pytest.raises(ValueError, match=told):
            make(learner, **wrong)


def test_default_damping_is_the_inverse_of_the_training_time():
    learner, data = problems.softmax(n=12)
    recipe = replace(learner.recipe, epochs=7, batch_size=4, learning_rate=0.02)
    learner = learner._replace(recipe=recipe)
    params = learner.model.init(jax.random.key(0)).params
    evidence = Evidence(one_model(params))
    short = ekfac_influence(learner, labels="exact")
    state = tiny.quick_jit(short.prepare)(jax.random.key(0), evidence, data)
    matrix = tree.member(state.inverses, 0)
    rates = 0.02 * sum((1 - 0.9 ** (s + 1)) / 0.1 for s in range(7 * 3))
    share = (1 / rates) / float(mean_eigenvalue(matrix))
    told = ekfac_influence(learner, labels="exact", damping=share)
    effects = [
        tiny.quick_jit(lambda s, one=one: one.effects(s, data, data, margin))(state)
        for one in (short, told)
    ]
    assert recipe.schedule == "constant"
    np.testing.assert_allclose(*effects, rtol=1e-5)  # rates are float32


def test_damping_by_block_takes_each_blocks_own_mean():
    learner, data = problems.two_layer(n=12)
    learner = learner._replace(l2=0.0, recipe=replace(learner.recipe, weight_decay=0.0))
    params = learner.model.init(jax.random.key(0)).params
    evidence = Evidence(one_model(params))
    change = jnp.asarray(np.random.default_rng(0).normal(size=len(data.weights)))
    found = ekfac_influence(learner, labels="exact", damping=0.3, damping_by="block")

    @tiny.quick_jit
    def run(evidence, data):
        state = found.prepare(jax.random.key(0), evidence, data)
        effects = found.effects(state, data, data, margin)
        return state.inverses, effects, found.change(state, data, data, change)

    inverses, effects, changed = run(evidence, data)
    objective = bind(learner.model, {}, learner.loss)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    slopes = jax.jacobian(lambda p: objective.example_losses(unflatten(p), data))(flat)
    outputs = jax.jacobian(lambda p: objective.predict(unflatten(p), data.inputs))(flat)
    own = jax.jacobian(
        lambda p: margin(objective.predict(unflatten(p), data.inputs), data.targets)
    )(flat)
    matrix = dense(kronecker_operator(tree.member(inverses, 0), params))
    sizes, start = [leaf.size for leaf in jax.tree.leaves(params)], 0
    inverse = np.zeros_like(matrix)
    for size in sizes:
        place = slice(start, start + size)
        block = matrix[place, place]
        damped = block + 0.3 * np.trace(block) / size * np.eye(size)
        inverse[place, place] = np.linalg.inv(damped)
        start += size
    count = len(slopes)
    expected = -own @ inverse @ slopes.T / count
    np.testing.assert_allclose(effects, expected, rtol=1e-7, atol=1e-10)
    moved = np.einsum("qkp,p->qk", outputs, -inverse @ (slopes.T @ change) / count)
    np.testing.assert_allclose(changed, moved, rtol=1e-7, atol=1e-10)
    with pytest.raises(ValueError, match="choose 'matrix' or 'block'"):
        ekfac_influence(learner, damping_by="layer")


@pytest.mark.parametrize(("most", "reason"), [(1, "out of steps"), (50, "converged")])
def test_effects_tell_how_their_solves_ended(net, most, reason):
    """Of two models and their queries; one without weight asks for nothing."""
    learner, models, train, queries = net
    made = influence(learner, damping=0.1, tol=1e-8, max_steps=most)
    queries = queries._replace(weights=jnp.ones(7).at[3].set(0.0))

    @tiny.quick_jit
    def run(models, queries):
        state = made.prepare(jax.random.key(0), Evidence(models), train)
        return made.effects_reported(state, train, queries, margin)

    found, told = run(models, queries)
    assert REASONS[int(told.code)].startswith(reason)
    assert 0 < int(told.steps) <= 2 * 6 * most
    assert (float(told.residual) > 1e-8) == (most == 1)
    np.testing.assert_array_equal(np.any(found != 0, axis=1), queries.weights != 0)
    plain = effects_of(made, models, train, queries, margin)
    np.testing.assert_allclose(plain, found, rtol=1e-12, atol=1e-15)
