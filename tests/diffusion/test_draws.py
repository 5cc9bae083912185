"""The diffusion loss given its draws: every curvature against dense float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from unlearn_jax.curvature.diagonal import (
    empirical_fisher_diagonal,
    gauss_newton_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.kronecker_blocks import Rotated
from unlearn_jax.diffusion.draws import diffusion_objective, draw, noised, over_draws
from unlearn_jax.diffusion.schedule import cosine_schedule
from unlearn_jax.diffusion.train import fit_denoiser
from unlearn_jax.models.diffusion_transformer import diffusion_transformer
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

COUNT, WORDS = 5, 7
SCHEDULE = cosine_schedule(20)


@pytest.fixture(scope="module")
def tiny():
    """A denoiser of one block in float64, away from its start, and noised examples."""
    denoiser = diffusion_transformer(
        (4, 4, 1),
        WORDS,
        tokens=3,
        depth=1,
        width=4,
        heads=2,
        text_width=4,
        text_depth=1,
        dtype=jnp.float64,
    )
    params = denoiser.model.init(jax.random.key(0)).params
    flat, back = ravel_pytree(params)
    flat = flat + 0.3 * jax.random.normal(jax.random.key(1), flat.shape)
    random = np.random.default_rng(0)
    data = Batch(
        random.uniform(-1, 1, (COUNT, 4, 4, 1)),
        random.integers(0, WORDS, (COUNT, 3)).astype(np.int32),
        np.array([1.0, 2.0, 0.0, 1.0, 0.5]),
    )
    draws = draw(jax.random.key(2), SCHEDULE, jnp.asarray(data.inputs), drop=0.3)
    return denoiser, back(flat), data, noised(SCHEDULE, data, draws)


@pytest.fixture(scope="module")
def dense(tiny):
    """Jacobians (n, k, p) and gradients (n, p) by JAX, one example after another."""
    denoiser, params, _, batch = tiny
    objective = diffusion_objective(denoiser)
    flat, back = ravel_pytree(params)

    def outputs(flat):
        return objective.predict(back(flat), batch.inputs)

    jacobian = np.asarray(jax.jit(jax.jacrev(outputs))(flat))
    missing = np.asarray(outputs(flat)) - np.asarray(batch.targets)
    return jacobian, np.einsum("nk,nkp->np", missing, jacobian)


def near(tree, truth, tolerance):
    found = np.asarray(ravel_pytree(tree)[0])
    np.testing.assert_allclose(
        found, truth, rtol=tolerance, atol=1e-2 * tolerance * np.abs(truth).max()
    )


def test_noising_is_the_textbook_formula(tiny):
    _, _, data, batch = tiny
    signal = np.asarray(SCHEDULE.signal)[np.asarray(batch.inputs["time"])]
    noise = np.asarray(batch.targets).reshape(COUNT, 4, 4, 1)
    kept, lost = (np.sqrt(each)[:, None, None, None] for each in (signal, 1 - signal))
    np.testing.assert_allclose(
        batch.inputs["image"], kept * data.inputs + lost * noise, rtol=1e-6
    )
    silent = np.all(np.asarray(batch.inputs["tokens"]) == 0, axis=1)
    same = np.all(np.asarray(batch.inputs["tokens"]) == data.targets, axis=1)
    assert np.all(silent | same)
    assert batch.inputs["time"].min() >= 1


@pytest.mark.slow  # Every day: the same functions on other nets, and the loss.
def test_gauss_newton_and_fisher_are_dense_ones_given_the_draws(tiny, dense):
    denoiser, params, _, batch = tiny
    objective, (jacobian, gradients) = diffusion_objective(denoiser), dense
    shares = np.asarray(batch.weights) / np.sum(batch.weights)
    matrix = np.einsum("n,nkp,nkq->pq", shares, jacobian, jacobian)
    vector = jax.random.normal(jax.random.key(3), matrix.shape[:1])
    back = ravel_pytree(params)[1]

    @jax.jit
    def ours(params, batch, vector):
        return (
            gauss_newton(objective, params, batch).matvec(back(vector)),
            empirical_fisher_diagonal(objective, params, batch),
        )

    fisher = np.einsum("n,np->p", shares, gradients**2)
    found = ours(params, batch, vector)
    for own, truth in zip(found, (matrix @ vector, fisher), strict=True):
        near(own, truth, 1e-9)


@pytest.mark.slow
def test_ekfac_measures_the_squares_of_dense_gradients(tiny, dense):
    denoiser, params, _, batch = tiny
    objective = diffusion_objective(denoiser)

    @jax.jit
    def ours(params, batch):
        diagonal = gauss_newton_diagonal(objective, params, batch)
        return ekfac(None, objective, params, batch), diagonal

    state, diagonal = ours(params, batch)
    shares = np.asarray(batch.weights) / np.sum(batch.weights)
    back = ravel_pytree(params)[1]
    leaves = zip(*(jax.tree.leaves(back(g)) for g in dense[1]), strict=True)
    near(diagonal, np.einsum("n,nkp->p", shares, dense[0] ** 2), 1e-9)
    rotated = 0
    for block, gradients in zip(state.blocks, leaves, strict=True):
        if not isinstance(block, Rotated):
            continue
        rotated += 1
        left, right = (np.asarray(each[0]) for each in (block.left, block.right))
        turned = np.einsum("ia,nio,ob->nab", left, np.stack(gradients), right)
        truth = np.einsum("n,nab->ab", shares, turned**2)
        np.testing.assert_allclose(
            block.values[0], truth, rtol=1e-7, atol=1e-10 * truth.max()
        )
    # Every product of the network and of the encoder: among them four maps of text.
    assert rotated >= 18


def test_the_mean_over_draws_tells_its_own_error(tiny):
    denoiser, params, data, _ = tiny
    objective = diffusion_objective(denoiser)

    @jax.jit
    def told(params, data):
        return over_draws(
            jax.random.key(5),
            SCHEDULE,
            data,
            lambda batch: objective.risk(params, batch),
            count=64,
        )

    @jax.jit
    def one(params, data, key):
        draws = draw(key, SCHEDULE, data.inputs, drop=0.0)
        return objective.risk(params, noised(SCHEDULE, data, draws))

    data = jax.tree.map(jnp.asarray, data)
    value, error = told(params, data)
    each = [one(params, data, k) for k in jax.random.split(jax.random.key(5), 64)]
    assert value == pytest.approx(np.mean(each))
    assert error == pytest.approx(np.std(each, ddof=1) / 8)


def test_training_learns_and_does_not_see_what_has_no_weight(tiny):
    denoiser, _, data, _ = tiny
    recipe = Recipe(
        epochs=150, batch_size=2, learning_rate=1e-2, optimizer="adam", weight_decay=0.0
    )

    @jax.jit
    def trained(data):
        return fit_denoiser(jax.random.key(0), denoiser, SCHEDULE, data, recipe)

    broken = data.inputs.copy()
    broken[2] = np.nan
    variables, loss = trained(data)
    other, _ = trained(data._replace(inputs=broken))
    assert 0 < loss < 0.9
    for a, b in zip(*map(jax.tree.leaves, (variables, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="build the denoiser for these"):
        fit_denoiser(
            jax.random.key(0),
            denoiser,
            SCHEDULE,
            data._replace(targets=data.targets[:, :2]),
            recipe,
        )


def test_noise_for_other_images_is_refused(tiny):
    _, _, data, _ = tiny
    draws = draw(jax.random.key(2), SCHEDULE, jnp.zeros((2, 4, 4, 1)))
    with pytest.raises(ValueError, match="draw it for these images"):
        noised(SCHEDULE, data, draws)
