"""The evidence by other roads, its curvature dense, and an autoencoder that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.data.canvas import digit_canvas
from unlearn_jax.generators.evidence import (
    coded,
    decoded,
    divergence,
    evidence_objective,
    fit_variational,
    negative_evidence,
)
from unlearn_jax.models.variational import variational
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch

KEY = jax.random.key(3)


def small():
    """An autoencoder of 2 × 2 pixels in float64, and four examples."""
    autoencoder = variational((2, 2, 1), 2, codes=1, widths=(3,), dtype=jnp.float64)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2, 1))
    data = Batch(jnp.asarray(images), jnp.array([0, 1, 1, 0]), jnp.ones(4))
    return autoencoder, coded(KEY, autoencoder, data)


def test_the_divergence_is_the_integral_of_log_ratios():
    mean, log = 0.7, -0.9
    one, normal = stats.norm(mean, np.exp(log / 2)), stats.norm()
    expected = integrate.quad(
        lambda x: one.pdf(x) * (one.logpdf(x) - normal.logpdf(x)), -8, 8
    )[0]
    found = divergence(jnp.array([[mean]]), jnp.array([[log]]))
    np.testing.assert_allclose(found, [expected], rtol=1e-8)


def test_black_and_white_images_cost_minus_their_log_probability():
    logits = np.array([[0.3, -1.2, 2.0]])
    targets = np.array([[1.0, 0.0, 1.0]])
    outputs = jnp.asarray(np.concatenate([logits, np.zeros((1, 4))], axis=1))
    chance = 1 / (1 + np.exp(-logits[0]))
    expected = -stats.bernoulli.logpmf(targets[0], chance).sum()
    found = negative_evidence(outputs, jnp.asarray(targets))
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_curvature_of_the_evidence_is_the_dense_one():
    autoencoder, batch = small()
    params = autoencoder.model.init(KEY).params
    flat, back = ravel_pytree(params)
    objective = evidence_objective(autoencoder)

    def ours(flat):
        params = back(flat)
        entries = empirical_fisher_diagonal(objective, params, batch)
        product = gauss_newton(objective, params, batch).matvec(back(jnp.cos(flat)))
        return ravel_pytree(entries)[0], ravel_pytree(product)[0]

    def dense(flat):
        def outputs(flat):
            return objective.predict(back(flat), batch.inputs)

        def losses(outputs):
            return negative_evidence(outputs, batch.targets)

        each = jax.jacrev(lambda flat: losses(outputs(flat)))(flat)
        jacobian, told = jax.jacrev(outputs)(flat), outputs(flat)
        bend = jax.vmap(
            lambda out, aim: jax.hessian(
                lambda o: negative_evidence(o[None], aim[None])[0]
            )(out)
        )(told, batch.targets)
        whole = jnp.einsum("nop,noq,nqr->pr", jacobian, bend, jacobian)
        return jnp.mean(each**2, 0), whole @ jnp.cos(flat) / len(told)

    for found, expected in zip(
        tiny.quick_jit(ours)(flat), tiny.quick_jit(dense)(flat), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_it_learns_digits_and_draws_labels():
    canvas = digit_canvas(styles=("plain",))
    autoencoder = variational((8, 8, 1), 10, widths=(32,))
    recipe = Recipe(6, 32, 3e-3, "adam", weight_decay=0.0)
    train = canvas.dataset.splits.train
    fit = jax.jit(lambda key, data: fit_variational(key, autoencoder, data, recipe))
    variables, loss = fit(KEY, train)
    # A pixel of probability one half costs log 2, whatever the image.
    assert 5 < float(loss) < 0.75 * 64 * np.log(2)
    images = decoded(KEY, autoencoder, variables, jnp.arange(10))
    assert images.shape == (10, 8, 8, 1)
    assert float(jnp.max(jnp.abs(images))) <= 1
    assert float(jnp.std(images, axis=0).max()) > 0.1


def test_other_images_are_refused():
    autoencoder, _ = small()
    wrong = Batch(jnp.zeros((1, 3, 3, 1)), jnp.zeros(1, jnp.int32), jnp.ones(1))
    with pytest.raises(ValueError, match="expected \\(2, 2, 1\\)"):
        coded(KEY, autoencoder, wrong)
    with pytest.raises(ValueError, match="codes"):
        variational((2, 2, 1), 2, codes=0)
