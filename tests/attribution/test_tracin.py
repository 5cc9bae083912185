"""TracIn: gradients formed one by one, and the limit of the exact metagradient."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from unlearn_jax.attribution.attribution import Evidence, Trajectory
from unlearn_jax.attribution.metagradient import metagradient
from unlearn_jax.attribution.output_functions import component, margin
from unlearn_jax.attribution.tracin import tracin
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.trajectory import fit_trajectories
from unlearn_jax.types import Batch, Variables

N, Q = 15, 6


@pytest.fixture(scope="module")
def problem():
    """(learner, evidence of two runs with made-up rates, train, queries)."""
    learner = tiny.learner("mlp")
    init = tiny.quick_jit(jax.vmap(jax.vmap(learner.model.init)))
    points = init(jax.random.split(jax.random.key(2), (2, 3)))
    rates = jnp.array([0.5, 2.0, 1.0])
    models = jax.tree.map(lambda leaf: leaf[:, 2], points)
    evidence = Evidence(models, None, Trajectory(points, rates, jnp.ones(3)))
    train = jax.tree.map(jnp.asarray, tiny.examples(count=N))
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 2.0, N))
    train = Batch(
        train.inputs.at[4].set(jnp.nan), train.targets, weights.at[4].set(0.0)
    )
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=Q, seed=8))
    hidden = queries.inputs.at[2].set(jnp.inf)
    queries = Batch(hidden, queries.targets, jnp.ones(Q).at[2].set(0.0))
    return learner, evidence, train, queries


def rows_of(learner, value, at, batch):
    """Gradients of ``value`` for each example, in rows, formed one by one."""

    def single(params, x, y):
        outputs = learner.model.apply(Variables(params, at.stats), x[None])
        return value(outputs, y[None])[0]

    def flat(x, y):
        slope = jax.grad(single)(at.params, x, y)
        return jax.flatten_util.ravel_pytree(slope)[0]

    seen = jnp.where(batch.weights[:, None] > 0, batch.inputs, 0)
    return jax.vmap(flat)(seen, batch.targets)


@pytest.fixture(scope="module")
def products(problem):
    """Rows of outputs and losses at each of the points of both runs, in numpy."""
    learner, evidence, train, queries = problem

    @tiny.quick_jit
    def compiled(points, train, queries):
        def one(at):
            first = rows_of(learner, margin, at, queries)
            return first, rows_of(learner, cross_entropy, at, train)

        return jax.lax.map(lambda run: jax.lax.map(one, run), points)

    own, found = compiled(evidence.trajectory.checkpoints, train, queries)
    return np.asarray(own), np.asarray(found)


def by_hand(kind, centred, products, train, rates):
    own, found = products
    weights = np.asarray(train.weights)
    if kind != "tracin":
        own, found, rates = own[:, 2:], found[:, 2:], np.ones(1)
    if kind == "grad_cos":
        own, found = (x / np.linalg.norm(x, axis=3)[..., None] for x in (own, found))
        return -np.mean(np.einsum("mcqp,mcnp->mcqn", own, found)[:, 0], axis=0)
    if centred:
        mean = np.einsum("n,mcnp->mcp", weights, found) / weights.sum()
        found = found - mean[:, :, None]
    total = np.einsum("c,mcqp,mcnp->qn", np.asarray(rates), own, found)
    return -total / (len(own) * weights.sum())


@pytest.mark.parametrize(
    ("kind", "centred"),
    [("tracin", True), ("tracin", False), ("grad_dot", True), ("grad_cos", True)],
)
def test_effects_are_products_of_gradients(problem, products, kind, centred):
    learner, evidence, train, queries = problem
    found = tracin(
        learner, kind=kind, centred=centred, batch_size=7, query_batch_size=4
    )

    @tiny.quick_jit
    def compiled(key, evidence, train, queries, move):
        state = found.prepare(key, evidence, train)
        return (
            found.effects(state, train, queries, margin),
            found.effects(state, train, queries, component(1)),
            found.change(state, train, queries, move),
        )

    move = jnp.asarray(np.random.default_rng(1).normal(size=N))
    scores, second, change = compiled(jax.random.key(0), evidence, train, queries, move)
    expected = by_hand(kind, centred, products, train, evidence.trajectory.rates)
    expected[2], expected[:, 4] = 0, 0
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-13)
    assert change.shape == (Q, tiny.CLASSES)
    np.testing.assert_allclose(change[:, 1], second @ move, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_with_short_steps_it_is_the_metagradient():
    """Full batches, momentum, schedule; what is left is of the order of the rate."""
    data = jax.tree.map(jnp.asarray, tiny.examples(count=N))
    data = data._replace(weights=jnp.linspace(0.5, 2.0, N))
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=Q, seed=8))
    keys = jax.random.split(jax.random.key(0), 2)
    learner = tiny.learner("mlp", epochs=6, batch_size=N, learning_rate=1e-3)
    both = [tracin(learner), metagradient(learner, query_batch_size=Q)]

    @tiny.quick_jit
    def compiled(keys, data, queries):
        models, pieces = fit_trajectories(keys, learner, data, points=1)
        evidence = Evidence(models, keys, Trajectory(*pieces))
        states = [b.prepare(keys[0], evidence, data) for b in both]
        return [
            b.effects(s, data, queries, margin)
            for b, s in zip(both, states, strict=True)
        ]

    found, exact = compiled(keys, data, queries)
    gap = float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
    assert gap < 5e-3
    # Weights that all grow by one factor change nothing in a mean.
    for scores in (found, exact):
        np.testing.assert_allclose(scores @ data.weights, 0, atol=1e-12)


def test_what_does_not_fit_is_refused(problem):
    learner, evidence, train, _ = problem
    with pytest.raises(ValueError, match="grad_dot"):
        tracin(learner, kind="dot")
    with pytest.raises(ValueError, match="at least 1"):
        tracin(learner, batch_size=0)
    with pytest.raises(ValueError, match="no trajectory"):
        tracin(learner).prepare(
            jax.random.key(0), evidence._replace(trajectory=None), train
        )
