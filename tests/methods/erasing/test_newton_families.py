"""Each family's second-order steps against dense float64, and nothing by their road."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scene import KEY, PROMPTS, change, chosen, images, scene

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.adapters import blank, with_adapters
from unlearn_jax.methods.erasing.adversarial_closed import (
    adv_closed_newton,
    half_attacked,
)
from unlearn_jax.methods.erasing.all_but_one import anchored
from unlearn_jax.methods.erasing.ascent import few_shot_natural
from unlearn_jax.methods.erasing.esd import erasing, staying
from unlearn_jax.methods.erasing.images import noisy, retained
from unlearn_jax.methods.erasing.newton import Solve
from unlearn_jax.methods.erasing.newton_prompts import all_but_one_newton, remaining
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.salun import renamed, salient, twice_captioned
from unlearn_jax.methods.erasing.salun_newton import salun_newton
from unlearn_jax.methods.erasing.spm import neutral, spm_newton
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.types import Variables

SOLVE = Solve("diagonal", 2.0, 0.3, products=80, points=3, kept=4)
SMALL = {"ways": 2, "solve": SOLVE}


def linear(told, params, data):
    """Outputs and their Jacobian, (n, pixels, parameters), by reverse mode."""
    flat, back = ravel_pytree(params)

    @tiny.quick_jit
    def both(flat, inputs):
        def one(flat):
            return told(back(flat), inputs)

        return one(flat), jax.jacrev(one)(flat)

    return (np.asarray(each) for each in both(flat, data.inputs))


def least_squares(told, params, data, weights=None):
    """Gauss-Newton matrix and gradient of weighted points."""
    outputs, jac = linear(told, params, data)
    weights = np.asarray(data.weights if weights is None else weights)
    weights = weights / weights.sum()
    bend = np.einsum("n,nkp,nkq->pq", weights, jac, jac)
    missing = outputs - np.asarray(data.targets)
    return bend, np.einsum("n,nk,nkp->p", weights, missing, jac)


def squares(stay):
    """The mean of squared gradients of single examples."""
    generator, variables = scene()
    told = diffusion_objective(generator.denoiser).predict
    outputs, jac = linear(told, variables.params, stay)
    slopes = np.einsum("nk,nkp->np", outputs - np.asarray(stay.targets), jac)
    return np.mean(slopes**2, axis=0)


def dense_move(bend, slope, fisher, inside, away=0.0):
    """(G + λ (F + δ))⁻¹ of what is inside, and zero elsewhere."""
    unit = fisher[inside].mean()
    model = bend + SOLVE.weight * np.diag(fisher + SOLVE.damping * unit)
    rest = -(slope + SOLVE.weight * fisher * away)
    move = np.zeros(len(slope))
    move[inside] = np.linalg.solve(model[np.ix_(inside, inside)], rest[inside])
    return move


def test_all_but_one_solves_both_of_its_regressions():
    generator, variables = scene()
    denoise = diffusion_objective(generator.denoiser).predict

    @tiny.quick_jit
    def ours(v):
        options = {**SMALL, "silent_weight": 0.5, "part": "strict"}
        moved = all_but_one_newton(KEY, generator, v, PROMPTS, **options)
        first, second, last = jax.random.split(KEY, 3)
        pool = anchored(first, generator, v, PROMPTS, ways=2)
        stay = remaining(second, generator, v, PROMPTS, solve=SOLVE, ways=2)
        count = len(pool.weights)
        shares = jnp.repeat(jnp.array([1.0, 0.5]), count)
        shares = shares / shares.sum()
        key = jax.random.fold_in(last, 0)
        return moved, pool, stay, jax.random.choice(key, 2 * count, (3,), p=shares)

    moved, pool, stay, rows = ours(variables)
    count = len(pool.weights)
    assert set(np.asarray(rows) < count) == {False, True}  # both kinds are met
    at = np.asarray(rows) % count
    quiet = np.asarray(rows) >= count
    tokens = np.where(quiet[:, None], 0, np.asarray(pool.inputs["tokens"])[at])
    inputs = {n: np.asarray(pool.inputs[n])[at] for n in ("image", "time")}
    silent, guidance = (np.asarray(pool.targets[n])[at] for n in ("silent", "guidance"))
    targets = silent + np.where(quiet[:, None], 0, guidance)
    data = pool._replace(
        inputs={**inputs, "tokens": tokens}, targets=targets, weights=np.ones(3)
    )
    bend, slope = least_squares(denoise, variables.params, data)
    expected = dense_move(bend, slope, squares(stay), chosen("strict"))
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(change(moved), expected, rtol=1e-5, atol=1e-9)


def test_salun_solves_inside_of_its_mask_as_if_nothing_else_were_there():
    generator, variables = scene()
    given = images(3)
    denoise = diffusion_objective(generator.denoiser).predict

    @tiny.quick_jit
    def ours(v):
        options = {"part": "x", "fraction": 0.3, "points": 4}
        moved = salun_newton(KEY, generator, v, given, solve=SOLVE, **options)
        first, second, third, last = jax.random.split(KEY, 4)
        moves = part_of(generator.denoiser, v.params, "x")
        own = picked(second, twice_captioned(given), 3)
        pool = renamed(third, generator, v.params, own)
        return (
            moved,
            salient(first, generator, v, given, moves=moves, fraction=0.3, points=4),
            picked(jax.random.fold_in(last, 0), pool, 3),
            retained(second, generator, v, given, kept=4),
        )

    moved, mask, data, stay = ours(variables)
    whole = jax.tree.map(lambda m, p: jnp.broadcast_to(m, p.shape), mask, variables[0])
    inside = np.asarray(ravel_pytree(whole)[0]).astype(bool)
    part = chosen("x")
    assert 0 < inside.sum() < part.sum()
    assert not np.any(inside & ~part)
    bend, slope = least_squares(denoise, variables.params, data)
    fisher = squares(stay)
    # δ is in mean eigenvalues of the part's F, whatever the mask.
    model = bend + SOLVE.weight * np.diag(fisher + SOLVE.damping * fisher[part].mean())
    expected = np.zeros(len(slope))
    expected[inside] = np.linalg.solve(model[np.ix_(inside, inside)], -slope[inside])
    np.testing.assert_allclose(change(moved), expected, rtol=1e-5, atol=1e-9)
    # What the anchor's caption made the original tell is what was asked for.
    words = {**data.inputs, "tokens": jnp.asarray(np.repeat(given.instead[:1], 3, 0))}
    told = denoise(variables.params, words)
    np.testing.assert_allclose(told, data.targets, atol=1e-9)


def test_the_second_step_is_at_what_an_attacker_finds_after_the_first():
    generator, variables = scene()
    denoiser = generator.denoiser

    @tiny.quick_jit
    def ours(v):
        options = {"part": "strict", "attack_l2": 1e-3, "ways": 2}
        once, twice = (
            adv_closed_newton(
                KEY, generator, v, PROMPTS, solve=SOLVE._replace(steps=n), **options
            )
            for n in (1, 2)
        )
        first, second, last = jax.random.split(KEY, 3)
        pool = erasing(first, generator, v, PROMPTS, ways=2)
        stay = remaining(second, generator, v, PROMPTS, solve=SOLVE, ways=2)
        data = picked(jax.random.fold_in(last, 1), pool, 3)
        words = half_attacked(denoiser, v, once, data, l2=1e-3)
        plain = denoiser.encode(v, data.inputs["tokens"])
        return once, twice, stay, data, words, plain

    once, twice, stay, data, words, plain = ours(variables)
    found = np.abs(words - plain).max(axis=(1, 2))
    assert found[0] > 1e-6
    assert found[1] == 0

    def told(params, inputs):
        seen = inputs["image"], inputs["time"], inputs["words"]
        return denoiser.denoise(Variables(params, {}), *seen)

    attacked = data._replace(inputs={**data.inputs, "words": words})
    bend, slope = least_squares(told, once.params, attacked)
    inside = chosen("strict")
    expected = dense_move(bend, slope, squares(stay), inside, away=change(once))
    np.testing.assert_allclose(
        change(twice) - change(once), expected, rtol=1e-5, atol=1e-9
    )


def test_an_adapter_is_solved_densely_and_what_it_reads_moves_in_the_second_step():
    generator, variables = scene()
    denoise = diffusion_objective(generator.denoiser).predict
    dense = Solve(weight=0.05, damping=0.5, products=None, points=4)

    @tiny.quick_jit
    def ours(v):
        options = {"anchor_weight": 0.5, "ways": 2}
        found = [
            spm_newton(
                KEY, generator, v, PROMPTS, solve=dense._replace(steps=n), **options
            )
            for n in (1, 2)
        ]
        first, second, third, last = jax.random.split(KEY, 4)
        pools = (
            neutral(first, generator, v, PROMPTS, ways=2),
            staying(second, generator, v, PROMPTS, ways=2),
        )
        steps = []
        for number in range(2):
            keys = jax.random.split(jax.random.fold_in(last, number))
            pairs = zip(keys, pools, strict=True)
            steps.append([picked(key, pool, 2) for key, pool in pairs])
        return [blank(third, v), *found], steps

    (start, once, twice), steps = ours(variables)
    flat, back = ravel_pytree(start)
    home = np.asarray(flat)

    def told(adapter, inputs):
        return denoise(with_adapters(variables, [adapter]).params, inputs)

    at = home
    for (own, kept), after in zip(steps, (once, twice), strict=True):
        parts = [least_squares(told, back(jnp.asarray(at)), x) for x in (own, kept)]
        bend, slope = ((a + 0.5 * b) / 1.5 for a, b in zip(*parts, strict=True))
        model = bend + 0.05 * 1.5 * np.eye(len(at))
        rest = -(slope + 0.05 * (at - home))
        at = at + np.linalg.solve(model, rest)
        found = np.asarray(ravel_pytree(after)[0])
        np.testing.assert_allclose(found, at, rtol=1e-6, atol=1e-10)
    still, moved = (
        max(float(jnp.abs(each.inner[n] - start.inner[n]).max()) for n in start.inner)
        for each in (once, twice)
    )
    assert still == 0
    assert moved > 1e-6


@pytest.mark.parametrize("kind", ["diagonal", "ekfac"])
def test_ascent_goes_as_far_as_its_radius_along_the_natural_gradient(kind):
    generator, variables = scene()
    given = images(4)

    @tiny.quick_jit
    def ours(v):
        options = {"kind": kind, "damping": 0.3, "points": 2, "kept": 4, "steps": 1}
        moved = [
            few_shot_natural(KEY, generator, v, given, shots=3, radius=r, **options)
            for r in (1e-3, 4e-3)
        ]
        first, second = jax.random.split(KEY)
        few = jax.tree.map(lambda leaf: leaf[:3], given.forget)
        data = noisy(jax.random.fold_in(second, 0), generator, few, 2)
        return moved, data, retained(first, generator, v, given, kept=4)

    for name in ("radius", "damping"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            few_shot_natural(KEY, generator, variables, given, **{name: 0.0})
    (near, far), data, stay = ours(variables)
    inside = chosen("text")
    denoise = diffusion_objective(generator.denoiser).predict
    _, slope = least_squares(denoise, variables.params, data)
    step = change(near)
    assert not np.any(step[~inside])
    assert slope @ step > 0
    np.testing.assert_allclose(change(far), 2 * step, rtol=1e-9)
    if kind == "diagonal":
        fisher = squares(stay)
        matrix = fisher + 0.3 * fisher[inside].mean()
        along = np.where(inside, slope / matrix, 0)
        expected = along * np.sqrt(2e-3 / (slope @ along))
        np.testing.assert_allclose(step, expected, rtol=1e-6, atol=1e-12)
        assert 0.5 * step @ (matrix * step) == pytest.approx(1e-3)
