"""Influence and Newton steps against exact refits, and every way to invert."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from problems import ridge, softmax, two_layer

from unlearn_jax import tree
from unlearn_jax.attribution.inverse import INVERSES
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_operator
from unlearn_jax.curvature.operator import dense
from unlearn_jax.methods import make_request
from unlearn_jax.methods.influence_removal import influence_removal
from unlearn_jax.methods.newton_removal import newton_removal
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Variables

EXACT = {"damping": 0.0, "inverse": "dense"}
GONE = [1, 5, 6]


def run(method, params, request, key=0):
    forget = tiny.quick_jit(lambda *a: method.forget(jax.random.key(key), (), *a)[0])
    return forget(Variables(params, {}), request).params


def distance(a, b):
    return float(tree.norm(tree.subtract(a, b)))


def refit(learner, data, steps=60):
    """The minimum by damped Newton steps on the dense Hessian, in plain JAX."""
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    start = learner.model.init(jax.random.key(0)).params
    flat, unflatten = jax.flatten_util.ravel_pytree(start)

    def risk(point, batch):
        return objective.risk(unflatten(point), batch)

    @tiny.quick_jit
    def step(point, batch):
        matrix = jax.hessian(risk)(point, batch)
        return point - jnp.linalg.solve(matrix, jax.grad(risk)(point, batch))

    for _ in range(steps):
        flat = step(flat, data)
    return unflatten(flat)


@pytest.mark.parametrize("inverse", ["dense", "cg", "minres"])
def test_one_newton_step_on_ridge_is_the_refit(inverse):
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    method = newton_removal(learner, inverse=inverse, damping=0.0, tol=1e-12)
    moved = run(method, solve(data.weights), request)
    assert_trees_close(moved, solve(request.retain.weights), rtol=1e-8)


def test_influence_on_ridge_is_newton_with_the_curvature_of_all_data():
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    start = solve(data.weights)
    moves = [
        tree.subtract(run(make(learner, **EXACT), start, request), start)
        for make in (newton_removal, influence_removal)
    ]
    design = np.concatenate([data.inputs, np.ones((len(data.inputs), 1))], axis=1)
    kept = np.asarray(request.retain.weights)

    def curvature(weights):
        mean = design.T @ ((weights / weights.sum())[:, None] * design)
        return mean + learner.l2 * np.eye(design.shape[1])

    newton, influence = (
        np.vstack([move["head"]["kernel"], move["head"]["bias"][None]])
        for move in moves
    )
    # W H_all influence = W_r H_retain newton: the same change of gradient.
    left = len(kept) * curvature(np.ones(len(kept))) @ influence
    np.testing.assert_allclose(left, kept.sum() * curvature(kept) @ newton, rtol=1e-9)
    assert np.linalg.norm(newton - influence) > 1e-3 * np.linalg.norm(newton)


def test_iterated_newton_on_softmax_reaches_the_refit():
    learner, data = softmax()
    request = make_request(data, GONE)
    method = newton_removal(learner, iterations=6, **EXACT)
    moved = run(method, refit(learner, data), request)
    oracle = refit(learner, request.retain)
    assert_trees_close(moved, oracle, rtol=1e-8, atol=1e-10)


def test_the_error_of_influence_is_of_second_order():
    # Half of the removed weight leaves a quarter of the error.
    learner, data = softmax()
    start = refit(learner, data)
    errors = []
    for share in (0.1, 0.05, 0.025):
        request = make_request(data, GONE)
        forget = request.forget._replace(weights=share * request.forget.weights)
        weights = data.weights.at[jnp.asarray(GONE)].add(-share)
        request = request._replace(forget=forget, retain=data._replace(weights=weights))
        moved = run(influence_removal(learner, **EXACT), start, request)
        errors.append(distance(moved, refit(learner, request.retain)))
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 4, rtol=0.08)


@pytest.fixture(scope="module")
def net():
    learner, data = two_layer()
    return learner, learner.model.init(jax.random.key(2)).params, data


def test_the_corrected_gradient_differs_only_off_the_minimum(net):
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    plain, corrected = (
        influence_removal(learner, correct_gradient=c, **EXACT) for c in (False, True)
    )
    start = solve(data.weights)
    moved = run(plain, start, request)
    assert_trees_close(run(corrected, start, request), moved, rtol=1e-8, atol=1e-12)
    # From elsewhere the corrected step still ends there, on a quadratic risk.
    away = jax.tree.map(lambda leaf: leaf + 0.3, start)
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    low, high = (
        float(objective.risk(run(m, away, request), request.retain))
        for m in (corrected, plain)
    )
    assert low < high


def in_closed_form(learner, params, request, kind, damping):
    """Dense matrices from the explicit Jacobian and Hessian."""
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    def losses(point, batch):
        return objective.example_losses(unflatten(point), batch)

    batch = request.retain._replace(weights=jnp.ones_like(request.retain.weights))
    slopes = np.asarray(jax.jacobian(losses)(flat, batch))
    if kind == "hessian":
        matrix = jax.hessian(lambda p: jnp.mean(losses(p, batch)))(flat)
    elif kind == "empirical_fisher":
        matrix = slopes.T @ slopes / len(slopes)
    else:
        outputs = lambda p: objective.predict(unflatten(p), batch.inputs)  # noqa: E731 - one line
        jacobian = np.asarray(jax.jacobian(outputs)(flat))
        chance = np.asarray(jax.nn.softmax(outputs(flat)))
        middle = np.einsum("nk,kj->nkj", chance, np.eye(chance.shape[1]))
        middle = middle - chance[:, :, None] * chance[:, None, :]
        matrix = np.einsum("nkp,nkj,njq->pq", jacobian, middle, jacobian) / len(slopes)
    matrix = np.asarray(matrix) + (learner.l2 + damping) * np.eye(flat.size)
    change = (slopes[GONE] + learner.l2 * np.asarray(flat)).sum(axis=0) / len(slopes)
    return matrix, change, flat, unflatten


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton", "empirical_fisher"])
def test_every_curvature_is_that_of_all_the_data(net, kind):
    learner, params, data = net
    request = make_request(data, GONE)
    method = influence_removal(learner, curvature=kind, inverse="dense", damping=0.7)
    expected = in_closed_form(learner, params, request, kind, 0.7)
    matrix, change, flat, unflatten = expected
    moved = run(method, params, request)
    answer = unflatten(flat + jnp.linalg.solve(matrix, change))
    assert_trees_close(moved, answer, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("inverse", [name for name in INVERSES if name != "ekfac"])
def test_every_inverse_agrees_with_the_dense_one(net, inverse):
    learner, params, data = net
    request = make_request(data, GONE)
    kind = "empirical_fisher" if inverse == "diagonal" else "gauss_newton"
    options = {"curvature": kind, "damping": 0.5, "tol": 1e-12, "rank": 60}
    method = influence_removal(learner, inverse=inverse, max_steps=500, **options)
    matrix, change, flat, unflatten = in_closed_form(
        learner, params, request, kind, 0.5
    )
    if inverse == "diagonal":
        matrix = np.diag(np.diag(matrix))
    answer = unflatten(flat + jnp.linalg.solve(matrix, change))
    assert_trees_close(run(method, params, request), answer, rtol=1e-7, atol=1e-10)


def test_ekfac_inverts_its_own_matrix_over_all_the_data(net):
    learner, params, data = net
    request = make_request(data, GONE)
    _, change, flat, unflatten = in_closed_form(
        learner, params, request, "gauss_newton", 0.5
    )
    objective = bind(learner.model, {}, learner.loss)
    state = ekfac(None, objective, params, data, labels="exact")
    matrix = dense(kronecker_operator(state, params))
    matrix += (0.5 + learner.l2) * np.eye(flat.size)
    options = {"curvature": "gauss_newton", "damping": 0.5}
    method = influence_removal(learner, inverse="ekfac", **options)
    answer = unflatten(flat + jnp.linalg.solve(matrix, change))
    assert_trees_close(run(method, params, request), answer, rtol=1e-7, atol=1e-10)


def test_noise_has_the_deviation_that_was_asked_for():
    learner, data, solve = ridge(features=40, outputs=20)
    request = make_request(data, GONE)
    start = solve(data.weights)
    still, noisy = (
        run(newton_removal(learner, noise=s, damping=0.1), start, request)
        for s in (0.0, 0.2)
    )
    drawn = jax.flatten_util.ravel_pytree(tree.subtract(noisy, still))[0]
    assert abs(float(jnp.std(drawn)) - 0.2) < 4 * 0.2 / np.sqrt(2 * drawn.size)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"curvature": "fisher"}, "curvature 'fisher' is unknown; choose from hessian"),
        ({"inverse": "lu"}, "inverse 'lu' is unknown; choose from cg, minres"),
        ({"damping": -1.0}, "damping must not be negative"),
        ({"inverse": "low_rank", "damping": 0.0}, "needs a positive damping"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_impossible_settings_are_refused_when_built(net, options, sentence):
    for make in (influence_removal, newton_removal):
        with pytest.raises(ValueError, match=sentence):
            make(net[0], **options)
