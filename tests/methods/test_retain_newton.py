"""Newton's steps away from the forget set: by dense algebra, and within a budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words

from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import dense
from unlearn_jax.methods import make_request
from unlearn_jax.methods.retain_newton import backtracked, retain_newton
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def learner():
    return tiny_words.learner()


@pytest.fixture(scope="module")
def request_w():
    return make_request(tiny_words.examples(16), [0, 1, 5])


@pytest.fixture(scope="module")
def original(learner, request_w):
    return tiny.quick_jit(lambda key, data: fit(key, learner, data))(
        jax.random.key(0), request_w.retain
    )


def run(method, original, request):
    forget = tiny.quick_jit(method.reported)
    return forget(jax.random.key(3), (), original, request)


def test_a_step_is_the_dense_solution_on_the_border(learner, original, request_w):
    method = retain_newton(
        learner, steps=1, nats=1e-4, damping=0.1, tol=1e-12, max_steps=400
    )
    moved, _, told = run(method, original, request_w)
    objective = bind(learner.model, {}, sequence_nll)
    matrix = np.asarray(
        dense(gauss_newton(objective, original.params, request_w.retain))
    )

    def summed(params):
        counts = jnp.sum(request_w.forget.targets >= 0, axis=1)
        losses = counts * objective.example_losses(params, request_w.forget)
        weights = request_w.forget.weights
        return -jnp.sum(weights * losses) / jnp.sum(weights)

    slope = tiny.flat(jax.grad(summed)(original.params))
    direction = -np.linalg.solve(matrix + 0.1 * np.eye(len(matrix)), slope)
    length = np.sqrt(1e-4 / (0.5 * direction @ matrix @ direction))
    step = tiny.flat(tree.subtract(moved.params, original.params))
    np.testing.assert_allclose(step, length * direction, rtol=1e-6, atol=1e-10)
    assert told.steps > 0


def test_the_complement_leaves_the_top_of_the_curvature_alone(
    learner, original, request_w
):
    settings = {"steps": 1, "nats": 1e-6, "inverse": "complement", "budget": 10.0}
    moved, _, told = run(
        retain_newton(learner, rank=45, **settings), original, request_w
    )
    objective = bind(learner.model, {}, sequence_nll)
    matrix = np.asarray(
        dense(gauss_newton(objective, original.params, request_w.retain))
    )
    top = np.linalg.eigh(matrix)[1][:, -45:]
    step = tiny.flat(tree.subtract(moved.params, original.params))
    size = np.linalg.norm(step)
    assert size > 0
    assert np.abs(top.T @ step).max() < 1e-6 * size
    # Of the same gradient, what conjugate gradients damped without end would keep.
    plain = retain_newton(
        learner, steps=1, nats=1e-6, damping=1e9, tol=1e-9, max_steps=5, budget=10.0
    )
    slope = tiny.flat(
        tree.subtract(run(plain, original, request_w)[0].params, original.params)
    )
    kept = slope - top @ (top.T @ slope)
    cosine = kept @ step / (size * np.linalg.norm(kept))
    assert cosine == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(0.5 * step @ matrix @ step, 1e-6, rtol=1e-6)
    assert told.steps == 0


@pytest.mark.parametrize("budget", [0.01, 0.2])
def test_the_retain_loss_stays_within_its_budget_while_the_other_rises(
    budget, learner, original, request_w
):
    method = retain_newton(learner, steps=6, nats=0.05, budget=budget)
    moved, _, _ = run(method, original, request_w)
    risk = bind(learner.model, {}, sequence_nll).risk
    rises = [
        float(risk(moved.params, part) - risk(original.params, part))
        for part in request_w
    ]
    assert rises[1] <= budget + 1e-9
    assert rises[0] > 2 * max(rises[1], 0.01)


def test_steps_are_halved_until_the_loss_is_low_enough():
    found = backtracked(lambda t: t**2, jnp.asarray(1.0), jnp.asarray(0.1))
    assert found == 0.25
    none = backtracked(lambda t: t + 1, jnp.asarray(1.0), jnp.asarray(0.1))
    assert none == 0
    broken = backtracked(lambda t: jnp.nan * t, jnp.asarray(1.0), jnp.asarray(0.1))
    assert broken == 0


def test_what_cannot_be_solved_is_refused(learner):
    with pytest.raises(ValueError, match="nats must be positive"):
        retain_newton(learner, nats=0.0)
    with pytest.raises(ValueError, match="reduction 'mean'"):
        retain_newton(learner, reduction="mean")
    with pytest.raises(ValueError, match="inverse"):
        retain_newton(learner, inverse="magic")
