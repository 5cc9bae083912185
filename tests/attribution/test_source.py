"""SOURCE: unrolled by hand where that is exact, and its two limits."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Evidence, Trajectory
from unlearn_jax.attribution.flow import mean_ekfac, propagators
from unlearn_jax.attribution.metagradient import metagradient
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.attribution.source import source
from unlearn_jax.attribution.tracin import tracin
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import dense
from unlearn_jax.models import mlp
from unlearn_jax.models.model import Model
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import fit_trajectories
from unlearn_jax.types import Batch, Variables

N, Q, L2 = 12, 4, 0.01


@pytest.fixture(scope="module")
def net():
    """(learner, points of two runs at four times, train, queries)."""
    learner = tiny.learner("mlp", l2=L2)
    init = tiny.quick_jit(jax.vmap(jax.vmap(learner.model.init)))
    points = init(jax.random.split(jax.random.key(2), (2, 4)))
    train = jax.tree.map(jnp.asarray, tiny.examples(count=N))
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2.0, N))
    hidden = train.inputs.at[4].set(jnp.nan)
    train = Batch(hidden, train.targets, weights.at[4].set(0.0))
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=Q, seed=8))
    hidden = queries.inputs.at[2].set(jnp.inf)
    queries = Batch(hidden, queries.targets, jnp.ones(Q).at[2].set(0.0))
    return learner, points, train, queries


@pytest.fixture(scope="module")
def compiled(net):
    learner, _, train, queries = net
    found = source(learner, segments=2, batch_size=7, query_batch_size=3)
    move = jnp.asarray(np.random.default_rng(1).normal(size=N))

    @tiny.quick_jit
    def run(points, rates, train, queries):
        models = jax.tree.map(lambda leaf: leaf[:, 3], points)
        evidence = Evidence(models, None, Trajectory(points, rates, jnp.ones(4)))
        state = found.prepare(jax.random.key(0), evidence, train)
        scores = found.effects(state, train, queries, component(1))
        return state, scores, found.change(state, train, queries, move)

    return lambda points, rates: (move, *run(points, rates, train, queries))


def test_a_change_is_the_effects_times_the_weights(net, compiled):
    _, points, train, _ = net
    move, _, scores, change = compiled(points, jnp.array([3.0, 1.0, 0.5, 20.0]))
    assert change.shape == (Q, tiny.CLASSES)
    np.testing.assert_allclose(change[:, 1], scores @ move, rtol=1e-9, atol=1e-13)
    assert np.count_nonzero(scores) == (Q - 1) * (N - 1)
    assert np.all(np.isfinite(scores))
    np.testing.assert_allclose(scores @ train.weights, 0, atol=1e-12)


def test_a_short_run_is_tracin(net, compiled):
    learner, points, train, queries = net
    rates = 1e-9 * jnp.array([3.0, 1.0, 0.5, 2.0])
    _, _, scores, _ = compiled(points, rates)
    # TracIn explains each point's own output; here that of the models: equal points.
    same = jax.tree.map(lambda leaf: leaf[:, 3:], points)
    last = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=1), same)
    _, _, equal, _ = compiled(last, rates)
    found = tracin(learner)

    @tiny.quick_jit
    def run(points, rates, train, queries):
        evidence = Evidence(None, None, Trajectory(points, rates, jnp.ones(4)))
        state = found.prepare(jax.random.key(0), evidence, train)
        return found.effects(state, train, queries, component(1))

    expected = run(last, rates, train, queries)
    np.testing.assert_allclose(equal, expected, rtol=1e-6, atol=1e-18)
    assert np.linalg.norm(scores - expected) > 0.05 * np.linalg.norm(expected)


def test_a_long_run_is_influence_with_the_ekfac_matrix(net, compiled):
    learner, points, train, queries = net
    same = jax.tree.map(lambda leaf: leaf[:, 3:], points)
    last = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=1), same)
    # What the first segment did is forgotten in the second.
    rates = jnp.array([1.0, 1.0, 1e9, 2e9])
    _, state, scores, _ = compiled(last, rates)

    @tiny.quick_jit
    def by_inverse(at, train, queries):
        objective = bind(learner.model, {}, learner.loss)
        matrix = ekfac(None, objective, at.params, train, labels="exact")
        inverse = kronecker_inverse(matrix, damping=L2)

        def loss(params, x, y):
            return objective.loss(objective.predict(params, x[None]), y[None])[0]

        def output(params, x):
            return objective.predict(params, x[None])[0, 1]

        slopes = jax.vmap(jax.grad(loss), (None, 0, 0))(
            at.params, jnp.nan_to_num(train.inputs), train.targets
        )
        own = jax.vmap(jax.grad(output), (None, 0))(
            at.params, jnp.nan_to_num(queries.inputs, posinf=0.0)
        )
        flat = jax.vmap(lambda x: jax.flatten_util.ravel_pytree(x)[0])
        rows = flat(jax.vmap(inverse)(own)) @ flat(slopes).T
        return matrix, -rows / jnp.sum(train.weights)

    matrices, rows = jax.vmap(by_inverse, (0, None, None))(
        jax.tree.map(lambda leaf: leaf[:, 0], same), train, queries
    )
    rows = np.array(np.mean(rows, axis=0))
    weights = np.asarray(train.weights)
    rows = rows - (rows @ weights / weights.sum())[:, None]
    rows[2], rows[:, 4] = 0, 0
    np.testing.assert_allclose(scores, rows, rtol=1e-6, atol=1e-10)
    # At equal points the mean matrix is that of one.
    of_run = jax.tree.map(lambda leaf: leaf[1, 1], state.curvatures)
    alone = jax.tree.map(lambda leaf: leaf[1], matrices)
    probe = jax.tree.map(lambda leaf: jnp.ones(leaf.shape[2:]), same.params)
    assert_trees_close(
        kronecker_operator(of_run, probe)(probe),
        kronecker_operator(alone, probe)(probe),
        rtol=1e-8,
        atol=1e-12,
    )


def test_propagators_are_the_matrix_exponential(net):
    learner, points, train, _ = net
    pair = jax.tree.map(lambda leaf: leaf[0, :2], points)
    shares = jnp.array([0.25, 0.75])

    @tiny.quick_jit
    def matrices(pair, train, rate):
        def at(variables):
            return bind(learner.model, {}, learner.loss)

        state = mean_ekfac(None, at, pair, shares, train)
        like = jax.tree.map(lambda leaf: leaf[0], pair.params)
        maps = propagators(state, rate, like, decay=0.1)

        def alone(variables):
            params = variables.params
            matrix = ekfac(None, at(variables), params, train, labels="exact")
            return dense(kronecker_operator(matrix, params))

        whole = dense(kronecker_operator(state, like))
        return [whole, jax.lax.map(alone, pair), *map(dense, maps)]

    mean, ones, stay, pull = map(np.asarray, matrices(pair, train, 2.0))
    # The head's bias comes first and is exact; of the rest the trace is.
    both = np.einsum("c,cpq->pq", shares, ones)
    np.testing.assert_allclose(mean[:3, :3], both[:3, :3], atol=1e-14)
    np.testing.assert_allclose(np.trace(mean), np.trace(both), rtol=1e-10)
    assert np.linalg.norm(mean - both) > 0.01 * np.linalg.norm(both)
    whole = mean + 0.1 * np.eye(len(mean))
    moved = scipy.linalg.expm(-2.0 * whole)
    np.testing.assert_allclose(stay, moved, atol=1e-12)
    expected = np.linalg.solve(whole, np.eye(len(mean)) - moved)
    np.testing.assert_allclose(pull, expected, atol=1e-11)


def regression():
    """A linear map with squared error, for which EK-FAC is exact."""

    def init(key):
        return Variables({"kernel": jax.random.normal(key, (3, 2))}, {})

    def apply(variables, inputs):
        return inputs @ variables.params["kernel"]

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, lambda _, inputs: inputs)


def test_at_a_minimum_it_is_the_limit_of_unrolling_by_hand():
    """Constant curvature and gradients: what is left is of the order of the rate."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(N, 3)), random.normal(size=(N, 2))
    weights = random.uniform(0.5, 2.0, N)
    total = weights.sum()
    hessian = x.T @ (weights[:, None] * x) / total
    kernel = np.linalg.solve(hessian, x.T @ (weights[:, None] * y) / total)
    learner = Learner(regression(), squared_error, 0.0, Recipe(weight_decay=0.0))
    found = source(learner, segments=2)
    train, queries = Batch(*map(jnp.asarray, (x, y, weights))), x[:Q] + 0.5
    queries = Batch(jnp.asarray(queries), jnp.zeros((Q, 2)), jnp.ones(Q))
    rates = np.array([0.9, 0.6])

    @tiny.quick_jit
    def run(kernel, train, queries):
        at = Variables({"kernel": kernel}, {})
        points = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, 2, *x.shape)), at)
        models = jax.tree.map(lambda x: x[None], at)
        way = Trajectory(points, jnp.asarray(rates), jnp.ones(2))
        state = found.prepare(jax.random.key(0), Evidence(models, None, way), train)
        return found.effects(state, train, queries, component(0))

    scores = run(jnp.asarray(kernel), train, queries)
    pulls = x * (x @ kernel - y)[:, :1]

    def unrolled(steps, momentum):
        rate = rates.sum() * (1 - momentum) / steps
        change, speed = np.zeros((3, N)), np.zeros((3, N))
        for _ in range(steps):
            speed = momentum * speed + hessian @ change + pulls.T / total
            change = change - rate * speed
        return np.asarray(queries.inputs) @ change

    for momentum in (0.0, 0.6):
        gaps = [
            np.linalg.norm(unrolled(steps, momentum) - scores) / np.linalg.norm(scores)
            for steps in (400, 800)
        ]
        assert gaps[0] < 0.02
        np.testing.assert_allclose(gaps[0] / gaps[1], 2.0, rtol=0.05)


@pytest.mark.slow
def test_on_its_way_to_the_minimum_it_is_nearer_the_truth_than_either_limit():
    random = np.random.default_rng(1)
    x = random.normal(size=(N, 3)) * np.array([1.5, 0.7, 0.2])
    y = random.normal(size=(N, 2))
    data = Batch(*map(jnp.asarray, (x, y, random.uniform(0.5, 2.0, N))))
    queries = data._replace(inputs=data.inputs[::-1] + 0.2, weights=jnp.ones(N))
    recipe = Recipe(40, N, 0.02, momentum=0.5, weight_decay=0.02, schedule="cosine")
    learner = Learner(regression(), squared_error, 0.01, recipe)
    names = {
        "truth": metagradient(learner, query_batch_size=N),
        "source": source(learner, segments=4),
        "tracin": tracin(learner),
    }
    keys = jax.random.split(jax.random.key(0), 2)

    @tiny.quick_jit
    def run(keys, data, queries):
        models, pieces = fit_trajectories(keys, learner, data, points=8)
        evidence = Evidence(models, keys, Trajectory(*pieces))
        return {
            name: a.effects(
                a.prepare(keys[0], evidence, data), data, queries, component(0)
            )
            for name, a in names.items()
        }

    scores = run(keys, data, queries)

    def gap(name):
        truth = scores["truth"]
        return float(jnp.linalg.norm(scores[name] - truth) / jnp.linalg.norm(truth))

    assert gap("source") < 0.05
    assert gap("tracin") > 5 * gap("source")


def test_what_does_not_fit_is_refused(net):
    learner, points, train, _ = net
    adam = learner._replace(recipe=Recipe(optimizer="adam"))
    for build, match in (
        (lambda: source(learner, segments=0), "at least 1"),
        (lambda: source(learner, labels="drawn"), "sampled"),
        (lambda: source(adam), "metagradient"),
    ):
        with pytest.raises(ValueError, match=match):
            build()
    way = Trajectory(points, jnp.ones(4), jnp.ones(4))
    with pytest.raises(ValueError, match="4 points for 3 segments"):
        source(learner).prepare(jax.random.key(0), Evidence(None, None, way), train)


def test_as_many_segments_as_points_do_not_lock_up():
    """One point each: XLA takes these loops apart, and their eigenproblems stood."""
    sizes = 64, 10
    model = mlp((64,), sizes[1], widths=(64, 64))
    learner = Learner(model, cross_entropy, 0.0, Recipe(epochs=1))
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1437, 64)).astype(np.float32)
    train = Batch(*map(jnp.asarray, (inputs, np.arange(1437) % 10, np.ones(1437))))
    train = train._replace(weights=train.weights.astype(jnp.float32))
    one = learner.model.init(jax.random.key(0))
    points = jax.tree.map(lambda leaf: jnp.stack([leaf] * 6)[None], one)
    models = jax.tree.map(lambda leaf: leaf[:, 0], points)
    found = source(learner, segments=6)

    @tiny.full_jit
    def prepare(models, points, train):
        way = Trajectory(points, jnp.ones(6), jnp.ones(6))
        return found.prepare(jax.random.key(0), Evidence(models, None, way), train)

    assert tree.all_finite(prepare(models, points, train).curvatures)
