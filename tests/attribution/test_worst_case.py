import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import optimize

from unlearn_jax.attribution.worst_case import (
    example_losses,
    highest_influence_set,
    project,
    worst_case_set,
)
from unlearn_jax.train.objective import bind

COUNT, SIZE, ABSENT = 30, 6, 4
OPTIONS = {"size": SIZE, "steps": 3, "learning_rate": 0.02, "weight_rate": 0.05}


@pytest.fixture(scope="module")
def problem():
    """A trained softmax; one example has no weight and holds NaN."""
    learner = tiny.learner("softmax")
    data = jax.tree.map(jnp.asarray, tiny.examples(count=COUNT))
    objective = bind(learner.model, {}, learner.loss)
    start = learner.model.init(jax.random.key(1)).params

    def step(_, params):
        slope = jax.grad(objective.risk)(params, data)
        return jax.tree.map(lambda x, g: x - 0.5 * g, params, slope)

    params = tiny.quick_jit(lambda p: jax.lax.fori_loop(0, 100, step, p))(start)
    data = data._replace(
        inputs=data.inputs.at[ABSENT].set(jnp.nan),
        weights=data.weights.at[ABSENT].set(0.0),
    )
    return objective, params, data


@functools.cache
def compiled(objective, **options):
    return tiny.quick_jit(
        lambda key, params, data: worst_case_set(
            key, objective, params, data, **(OPTIONS | options)
        )
    )


def search(problem, key=0, **options):
    objective, params, data = problem
    found = compiled(objective, **options)(jax.random.key(key), params, data)
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("total", [0.7, 3.0, 8.0])
def test_projection_is_the_quadratic_program(total):
    random = np.random.default_rng(int(10 * total))
    values, caps = 1.5 * random.normal(size=12), np.ones(12)
    caps[[2, 7]] = 0
    found = np.asarray(tiny.quick_jit(project)(values, caps, total))
    program = optimize.minimize(
        lambda w: 0.5 * np.sum((w - values) ** 2),
        np.minimum(total / 12, caps),
        jac=lambda w: w - values,
        bounds=[(0, cap) for cap in caps],
        constraints={
            "type": "eq",
            "fun": lambda w: w.sum() - total,
            "jac": lambda w: np.ones(12),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found, program.x, atol=1e-6)
    np.testing.assert_allclose(found.sum(), total, atol=1e-12)
    assert (found >= 0).all()
    assert (found <= caps).all()


def test_projection_leaves_what_is_feasible_and_maps_over_rows():
    random = np.random.default_rng(0)
    inside = random.uniform(0.2, 0.8, (3, 9)).astype(np.float32)
    totals = inside.sum(axis=1)
    run = tiny.quick_jit(jax.vmap(lambda v, t: project(v, jnp.ones_like(v), t)))
    found = run(inside, totals)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, inside, atol=1e-6)
    # Ties at a corner: nothing is free, and the sum still holds.
    corner = run(np.eye(3, 9, dtype=np.float32) * 50, np.ones(3, np.float32))
    np.testing.assert_array_equal(corner, np.eye(3, 9))


def test_one_round_is_the_formula_written_out(problem):
    """Two roads: sign descent and projected step in numpy."""
    _, params, data = problem
    found = search(problem, rounds=1, ridge=0.1)
    start_key, _ = jax.random.split(jax.random.key(0))
    guess = np.array(jax.random.uniform(start_key, (COUNT,), jnp.float64))
    guess[ABSENT] = -1
    chosen = np.zeros(COUNT)
    chosen[np.argsort(guess)[-SIZE:]] = 1
    kept = np.arange(COUNT) != ABSENT
    inputs, targets = np.asarray(data.inputs)[kept], np.asarray(data.targets)[kept]

    def chances(kernel):
        logits = inputs @ kernel
        logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.exp(logits), -logits[np.arange(len(targets)), targets]

    kernel = np.array(params["kernel"])
    for _ in range(OPTIONS["steps"]):
        slopes = (1 - chosen[kept])[:, None] * (chances(kernel)[0] - np.eye(3)[targets])
        kernel = kernel - OPTIONS["learning_rate"] * np.sign(inputs.T @ slopes)
    losses = chances(kernel)[1]
    np.testing.assert_allclose(found.losses, (chosen[kept] * losses).sum() / SIZE)
    moved = chosen[kept] - OPTIONS["weight_rate"] * (losses + 0.2 * chosen[kept])
    expected = np.asarray(project(moved, np.ones(COUNT - 1), SIZE))
    np.testing.assert_allclose(found.weights[kept], expected, atol=1e-10)


def test_the_worst_case_is_well_predicted_and_the_reverse_badly(problem):
    objective, params, data = problem
    before = np.asarray(example_losses(objective, params, data))
    hard = search(problem, rounds=40, weight_rate=0.5)
    easy = search(problem, rounds=40, weight_rate=0.5, reverse=True)
    random = np.delete(before, ABSENT).mean()
    assert before[hard.chosen].mean() < 0.5 * random
    assert before[easy.chosen].mean() > 2 * random
    assert hard.losses[-1] < hard.losses[0]
    assert easy.losses[-1] > easy.losses[0]


@pytest.mark.parametrize("unlearn", ["gradient_ascent", "difference"])
def test_what_is_returned_is_a_choice_of_so_many_that_are_there(problem, unlearn):
    found = search(problem, rounds=3, unlearn=unlearn)
    assert found.weights[ABSENT] == 0
    assert ABSENT not in found.chosen
    np.testing.assert_allclose(found.weights.sum(), SIZE, atol=1e-10)
    assert len(np.unique(found.chosen)) == SIZE
    assert (np.diff(found.chosen) > 0).all()
    worst_kept = found.weights[found.chosen].min()
    assert worst_kept >= np.delete(found.weights, found.chosen).max()
    assert all(np.isfinite(leaf).all() for leaf in found)


def test_binarised_weights_are_the_choice_itself(problem):
    found = search(problem, rounds=4, binarise_every=2)
    expected = np.zeros(COUNT)
    expected[found.chosen] = 1
    np.testing.assert_array_equal(found.weights, expected)


def test_whole_passes_depend_on_the_key_by_the_start_only(problem):
    """Minibatches of one draw the same sets for the same key, others for another."""
    objective, params, data = problem
    run = compiled(objective, rounds=3, minibatch=8)
    same, again, other = (
        run(jax.random.key(k), params, data).weights for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(same, again)
    assert np.abs(np.asarray(same - other)).max() > 0
    assert np.isfinite(np.asarray(same)).all()


def test_it_maps_over_keys(problem):
    objective, params, data = problem
    keys = jax.random.split(jax.random.key(7), 2)

    def run(key, params, data):
        return worst_case_set(key, objective, params, data, rounds=4, **OPTIONS)

    together = tiny.quick_jit(jax.vmap(run, (0, None, None)))(keys, params, data)
    for i, key in enumerate(keys):
        alone = compiled(objective, rounds=4)(key, params, data)
        np.testing.assert_allclose(together.weights[i], alone.weights, atol=1e-10)


def test_highest_influence_counts_both_signs():
    effects = np.array([[1.0, -3.0, 0.5, 0.0], [1.0, 3.0, -0.1, 0.2]])
    np.testing.assert_array_equal(highest_influence_set(effects, 2), [0, 1])
    np.testing.assert_array_equal(highest_influence_set(effects, 0.25), [1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 29}, "expected 1 to 28"),
        ({"size": 3, "rounds": 0}, "at least 1 of each"),
        ({"size": 3, "minibatch": 0}, "at least 1 of each"),
        ({"size": 3, "unlearn": "retrain"}, "choose from finetune, gradient_ascent"),
    ],
)
def test_refusals_say_what_to_change(problem, options, sentence):
    objective, params, data = problem
    with pytest.raises(ValueError, match=sentence):
        worst_case_set(jax.random.key(0), objective, params, data, **options)
