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
from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.curvature_influence import influence
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_operator
from unlearn_jax.curvature.operator import dense
from unlearn_jax.methods import chain, make_request, restrict
from unlearn_jax.methods.datamodel_matching import match_with
from unlearn_jax.methods.identity import identity
from unlearn_jax.methods.influence_removal import influence_removal
from unlearn_jax.methods.influence_unlearning import influence_unlearning
from unlearn_jax.methods.newton_removal import newton_removal
from unlearn_jax.solvers.inverse import INVERSES
from unlearn_jax.solvers.solution import (
    CONVERGED,
    OUT_OF_STEPS,
    Report,
    acceptable,
    both_reports,
)
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.train.trajectory import training_time
from unlearn_jax.types import Variables

EXACT = {"damping": 0.0, "inverse": "dense"}
GONE = [1, 5, 6]
KEY = jax.random.key(0)


def run(method, params, request, data):
    """Prepared on the data, then unlearned."""
    return both(method, params, request, data)[0]


def both(method, params, request, data):
    """The parameters after a request, and the state."""

    @tiny.quick_jit
    def forget(variables, request, data):
        state = method.prepare(KEY, variables, data)
        return method.forget(KEY, state, variables, request)

    variables, state = forget(Variables(params, {}), request, data)
    return variables.params, state


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
    moved = run(method, solve(data.weights), request, data)
    assert_trees_close(moved, solve(request.retain.weights), rtol=1e-8)


@pytest.mark.parametrize("make", [influence_removal, newton_removal])
def test_what_training_left_undone_is_no_reason_to_move(make):
    """From anywhere: the minimum of what stays, tilted so that the start was one."""
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    start = jax.tree.map(lambda leaf: leaf + 0.3, solve(data.weights))
    shift = tree.subtract(solve(request.retain.weights), solve(data.weights))
    design = np.concatenate([data.inputs, np.ones((len(data.inputs), 1))], axis=1)
    kept = np.asarray(request.retain.weights)

    def slope(weights, point):
        mean = design.T @ ((weights / weights.sum())[:, None] * design)
        return (mean + learner.l2 * np.eye(design.shape[1])) @ point

    flat = lambda p: np.vstack([p["head"]["kernel"], p["head"]["bias"][None]])  # noqa: E731 - one line
    moved = flat(run(make(learner, **EXACT), start, request, data)) - flat(start)
    # H_retain move = H_retain shift + (H_all − H_retain) 0.3
    away = 0.3 * np.ones_like(moved)
    expected = slope(kept, flat(shift)) + slope(np.ones(len(kept)), away)
    expected = expected - slope(kept, away)
    np.testing.assert_allclose(slope(kept, moved), expected, rtol=1e-8, atol=1e-12)


def test_requests_follow_one_another():
    """The state after a step is the mean gradient of what is left, where that is."""
    learner, data, solve = ridge()
    learner = learner._replace(recipe=Recipe(weight_decay=0.02))
    first = make_request(data, GONE)
    method = influence_removal(learner, damping=0.3, scale=0.7, inverse="dense")
    params, state = both(method, solve(data.weights), first, data)
    objective = bind(learner.model, {}, learner.loss)
    there = jax.grad(objective.risk)(params, first.retain)
    assert_trees_close(state, there, rtol=1e-8, atol=1e-12)


def test_without_damping_the_length_of_training_is_taken():
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    time = float(training_time(learner.recipe, data.weights))
    start = solve(data.weights)
    for make in (influence_removal, newton_removal):
        known = run(make(learner, damping=1 / time, tol=1e-12), start, request, data)
        found = run(make(learner, tol=1e-12), start, request, data)
        assert_trees_close(found, known, rtol=1e-9, atol=1e-13)
        adam = learner._replace(recipe=Recipe(optimizer="adam"))
        with pytest.raises(ValueError, match="reads the learning rates of SGD"):
            make(adam)
        make(adam, damping=0.1)


def test_weight_decay_of_training_is_l2(net):
    learner, params, data = net
    request = make_request(data, GONE)
    for make in (influence_removal, newton_removal):
        decays, held, less = (
            run(make(learner._replace(**change), **EXACT), params, request, data)
            for change in (
                {"l2": 0.01, "recipe": Recipe(weight_decay=0.04)},
                {"l2": 0.05, "recipe": Recipe(weight_decay=0.0)},
                {"l2": 0.01, "recipe": Recipe(weight_decay=0.0)},
            )
        )
        assert_trees_close(decays, held, rtol=1e-12)
        assert distance(held, less) > 0.1 * distance(held, params)


def test_iterated_newton_on_softmax_reaches_the_refit():
    learner, data = softmax()
    request = make_request(data, GONE)
    method = newton_removal(learner, iterations=6, **EXACT)
    moved = run(method, refit(learner, data), request, data)
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
        moved = run(influence_removal(learner, **EXACT), start, request, data)
        errors.append(distance(moved, refit(learner, request.retain)))
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 4, rtol=0.08)


@pytest.fixture(scope="module")
def net():
    learner, data = two_layer()
    return learner, learner.model.init(jax.random.key(2)).params, data


def in_closed_form(learner, params, request, kind, damping):
    """Dense matrices from the explicit Jacobian and Hessian."""
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)

    def losses(point, batch):
        return objective.example_losses(unflatten(point), batch)

    kept = np.asarray(request.retain.weights) > 0
    batch = jax.tree.map(lambda leaf: leaf[kept], request.retain)
    slopes = np.asarray(jax.jacobian(losses)(flat, request.retain))
    gone, slopes = slopes[~kept], slopes[kept]
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
    share = len(gone) / (len(gone) + len(slopes))
    change = share * (gone.mean(axis=0) - slopes.mean(axis=0))
    return matrix, change, flat, unflatten


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton", "empirical_fisher"])
def test_every_curvature_is_that_of_what_stays(net, kind):
    learner, params, data = net
    request = make_request(data, GONE)
    method = influence_removal(learner, curvature=kind, inverse="dense", damping=0.7)
    expected = in_closed_form(learner, params, request, kind, 0.7)
    matrix, change, flat, unflatten = expected
    moved = run(method, params, request, data)
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
    moved = run(method, params, request, data)
    assert_trees_close(moved, answer, rtol=1e-7, atol=1e-10)


def test_ekfac_inverts_its_own_matrix_of_what_stays(net):
    learner, params, data = net
    request = make_request(data, GONE)
    _, change, flat, unflatten = in_closed_form(
        learner, params, request, "gauss_newton", 0.5
    )
    objective = bind(learner.model, {}, learner.loss)
    state = ekfac(None, objective, params, request.retain, labels="exact")
    matrix = dense(kronecker_operator(state, params))
    matrix += (0.5 + learner.l2) * np.eye(flat.size)
    options = {"curvature": "gauss_newton", "damping": 0.5}
    method = influence_removal(learner, inverse="ekfac", **options)
    answer = unflatten(flat + jnp.linalg.solve(matrix, change))
    moved = run(method, params, request, data)
    assert_trees_close(moved, answer, rtol=1e-7, atol=1e-10)


def test_noise_has_the_deviation_that_was_asked_for():
    learner, data, solve = ridge(features=40, outputs=20)
    request = make_request(data, GONE)
    start = solve(data.weights)
    still, noisy = (
        run(newton_removal(learner, noise=s, damping=0.1), start, request, data)
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


SOLVING = {
    "influence_removal": influence_removal,
    "newton_removal": lambda learner, **o: newton_removal(learner, iterations=2, **o),
    "influence_unlearning": influence_unlearning,
    "matching": lambda learner, **o: match_with(learner, influence(learner, **o), _one),
    "chain": lambda learner, **o: chain(
        identity(learner), influence_removal(learner, **o)
    ),
    "restrict": lambda learner, **o: restrict(
        influence_removal(learner, **o), lambda path: path[-1] == "kernel"
    ),
}


def _one(key, original, train):
    return Evidence(jax.tree.map(lambda leaf: leaf[None], original))


@pytest.mark.parametrize("name", SOLVING)
def test_a_solver_is_heard(name):
    """The report is that of the solve, and the model the one of ``forget``."""
    learner, data, solve = ridge()
    request = make_request(data, GONE)
    start = Variables(solve(data.weights), {})
    told = {}
    for most in (1, 100):
        method = SOLVING[name](learner, damping=0.01, tol=1e-10, max_steps=most)

        @tiny.quick_jit
        def both_ways(variables, request, data, method=method):
            state = method.prepare(KEY, variables, data)
            arguments = KEY, state, variables, request
            silent, _ = method.forget(*arguments)
            loud, _, report = method.reported(*arguments)
            return silent, loud, report

        silent, loud, told[most] = both_ways(start, request, data)
        assert_trees_close(silent, loud, rtol=0, atol=0)
    assert int(told[1].code) == OUT_OF_STEPS
    assert float(told[1].residual) > 1e-10
    assert acceptable(told[100])
    rounds = 2 if name == "newton_removal" else 1
    assert int(told[1].steps) == rounds
    assert rounds < int(told[100].steps) <= 100 * rounds


def test_a_report_keeps_the_first_failure_and_counts_all_steps():
    good = Report(*map(jnp.asarray, (1e-7, 4, CONVERGED)))
    bad = Report(*map(jnp.asarray, (0.5, 7, OUT_OF_STEPS)))
    for first, second in ((good, bad), (bad, good)):
        told = both_reports(first, second)
        assert (int(told.code), int(told.steps)) == (OUT_OF_STEPS, 11)
        assert float(told.residual) == 0.5
