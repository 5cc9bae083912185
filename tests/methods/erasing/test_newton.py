"""Second-order steps against dense numpy, on the maps that read the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scene import KEY, PROMPTS, change, chosen, jacobian, scene, told

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.amnesia import surrogate
from unlearn_jax.methods.erasing.curvature import as_drawn, curvature, product, unit
from unlearn_jax.methods.erasing.esd import erasing, staying
from unlearn_jax.methods.erasing.newton import Solve, newton_steps
from unlearn_jax.methods.erasing.newton_prompts import amnesia_newton, esd_newton
from unlearn_jax.methods.erasing.parts import of_part, taken_out

WEIGHT, DAMPING = 2.0, 0.3
KINDS = ("diagonal", "ekfac", "low_rank")


@pytest.fixture(scope="module")
def problem():
    """Two points to erase at, both curvatures dense, and steps of three lengths."""
    generator, variables = scene()
    own, back = taken_out(generator.denoiser, variables.params, "strict")
    objective = of_part(diffusion_objective(generator.denoiser), back)
    flat, unflat = ravel_pytree(own)

    @tiny.quick_jit
    def ours(v):
        pool = erasing(KEY, generator, v, PROMPTS, ways=2)
        stay = as_drawn(KEY, staying(KEY, generator, v, PROMPTS, ways=4))
        found = {}
        for kind in KINDS:
            matrix = curvature(kind, objective, own, stay)
            given = KEY, objective, own, pool, matrix
            solve = Solve(kind, WEIGHT, DAMPING)
            steps = [
                newton_steps(*given, solve._replace(products=count), chosen=whole)
                for count in (1, 2, 40, None)
            ]
            steps = [v._replace(params=back(each)) for each in steps]
            stiff = product(matrix, own).matvec

            def column(row, stiff=stiff):
                return ravel_pytree(stiff(unflat(row)))[0]

            basis = jnp.eye(flat.size)

            found[kind] = steps, jax.lax.map(column, basis), unit(matrix)
        return pool, stay, found

    return ours(variables)


def dense(pool):
    """Gauss-Newton matrix and gradient of the points."""
    inside = chosen("strict")
    seen, count = pool.inputs, len(pool.weights)
    bend, slope = 0, 0
    for row in range(count):
        given = seen["image"][row][None], seen["time"][row], seen["tokens"][row]
        jac = jacobian(*given)[0][:, inside]
        missing = told(*given)[0] - np.asarray(pool.targets[row])
        bend, slope = bend + jac.T @ jac / count, slope + missing @ jac / count
    return bend, slope


def whole(key, params, pool):
    """All points in every step."""
    return pool


@pytest.mark.parametrize("kind", KINDS)
def test_many_products_solve_and_one_is_best_on_its_line(problem, kind):
    pool, _, found = problem
    (one, two, many, solved), matrix, size = found[kind]
    inside = chosen("strict")
    stiff = np.asarray(matrix)
    tether = WEIGHT * (stiff + DAMPING * float(size) * np.eye(len(stiff)))
    bend, slope = dense(pool)
    model = bend + tether
    for each in (one, two, many, solved):
        assert not np.any(change(each)[~inside])
    exact = np.linalg.solve(model, -slope)
    np.testing.assert_allclose(change(many)[inside], exact, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(change(solved)[inside], exact, rtol=1e-7, atol=1e-12)
    along = np.linalg.solve(tether, -slope)
    length = -(slope @ along) / (along @ model @ along)
    np.testing.assert_allclose(change(one)[inside], length * along, rtol=1e-7)

    def left(step):
        return slope @ step + 0.5 * step @ model @ step

    values = [left(change(each)[inside]) for each in (one, two, many)]
    assert values[0] > values[1] > values[2]


def test_drawn_targets_make_the_fisher_of_what_is_told(problem):
    """Unit noise around the prediction: squared gradients are (Jᵀ noise)²."""
    _, stay, found = problem
    entries = np.diag(np.asarray(found["diagonal"][1]))
    seen, total = stay.inputs, 0
    for row in range(len(stay.weights)):
        given = seen["image"][row][None], seen["time"][row], seen["tokens"][row]
        noise = told(*given)[0] - np.asarray(stay.targets[row])
        slope = noise @ jacobian(*given)[0][:, chosen("strict")]
        total = total + slope**2 / len(stay.weights)
    np.testing.assert_allclose(entries, total, rtol=1e-8, atol=1e-14)


@pytest.mark.slow
def test_both_losses_move_their_part_alone_and_a_heavier_tether_moves_less():
    generator, variables = scene(steps=2)
    small = Solve(points=4, kept=4)

    @tiny.quick_jit
    def erased(v):
        esd = [
            esd_newton(
                KEY,
                generator,
                v,
                PROMPTS,
                ways=2,
                solve=small._replace(weight=weight),
            )
            for weight in (1.0, 1e5)
        ]
        solve = small._replace(kind="diagonal", weight=100.0, steps=2)
        options = {"memories": 2, "part": "x", "solve": solve}
        return [*esd, amnesia_newton(KEY, generator, v, PROMPTS, **options)]

    found = erased(variables)
    inside = chosen("x")
    for each in found:
        assert not np.any(change(each)[~inside])
    light, heavy, _ = (np.linalg.norm(change(each)) for each in found)
    assert 0 < heavy < 0.5 * light
    before = surrogate(KEY, generator, jnp.asarray(PROMPTS.forget), 64)
    risk = tiny.quick_jit(diffusion_objective(generator.denoiser).risk)
    assert risk(found[2].params, before) < risk(variables.params, before)


def test_what_is_impossible_is_refused():
    generator, variables = scene()
    for options, word in (
        ({"kind": "kfac"}, "choose from diagonal, ekfac, low_rank"),
        ({"products": 0}, "products must be at least 1"),
        ({"kept": 0}, "kept must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"weight": 0.0}, "weight must be positive"),
    ):
        with pytest.raises(ValueError, match=word):
            esd_newton(KEY, generator, variables, PROMPTS, solve=Solve(**options))
