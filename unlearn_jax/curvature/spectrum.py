"""Eigenvalues of an operator by Lanczos: its ends, its density, sums over it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Float
from matfree import decomp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.curvature.stochastic_diagonal import random_vector
from unlearn_jax.types import Array, Estimate, PRNGKey, Scalar
from unlearn_kernels.precision import as_outside, exact_product


class ExtremeEigenvalues(NamedTuple):
    """Value: both ends of a spectrum.

    An eigenvalue lies within each residual of its value; after enough steps it is the
    extreme one.

    Attributes:
        smallest: Most negative (or smallest) Ritz value.
        largest: Largest Ritz value.
        smallest_residual: ‖A x − θ x‖ for its unit Ritz vector, by a product of its
            own, in the units of the eigenvalues.
        largest_residual: The same for the largest.
    """

    smallest: Float[Array, "..."]
    largest: Float[Array, "..."]
    smallest_residual: Float[Array, "..."]
    largest_residual: Float[Array, "..."]


class Spectrum(NamedTuple):
    """Value: a spectrum as seen by random vectors.

    Attributes:
        nodes: Ritz values, one row per random vector.
        weights: Share of the spectrum at each node; every row sums to 1.
        size: Number of eigenvalues, that is of parameters.
    """

    nodes: Float[Array, "... probes steps"]
    weights: Float[Array, "... probes steps"]
    size: Float[Array, "..."]


def extreme_eigenvalues(
    key: PRNGKey, operator: LinearOperator, *, steps: int
) -> ExtremeEigenvalues:
    """The largest and the smallest eigenvalue, from one random starting vector.

    Args:
        key: Random key of the starting vector.
        operator: Symmetric.
        steps: Lanczos steps, at most the number of parameters.

    Returns:
        Both values and how well they hold. Ritz values lie inside the spectrum: the
        largest is never too large, the smallest never too small.

    Raises:
        ValueError: no steps, or more than parameters.

    Cost: steps + 2 products; 8 · steps² · parameters operations for orthogonalisation
        against the whole basis, twice; memory two bases of steps · parameters.
    Source: Lanczos 1950, by the library matfree. Differs: orthogonalised twice; where
        the Krylov space ends early the rest is left out.
    """
    start, unravel = _start(key, operator)
    alphas, betas, basis = _lanczos(operator, start, unravel, steps)
    values, vectors = _eigh_tridiagonal(alphas, betas)

    def residual(index: int) -> Scalar:
        ritz = exact_product(basis, vectors[:, index])
        ritz = ritz / jnp.linalg.norm(ritz)
        image = _flat(operator.matvec(unravel(ritz)))
        return jnp.linalg.norm(image - values[index] * ritz)

    return ExtremeEigenvalues(values[0], values[-1], residual(0), residual(-1))


def spectral_density(
    key: PRNGKey, operator: LinearOperator, *, probes: int, steps: int
) -> Spectrum:
    """Gauss quadratures of the spectrum by stochastic Lanczos.

    Args:
        key: Random key.
        operator: Symmetric.
        probes: Random sign vectors, at least 2.
        steps: Lanczos steps per vector; moments up to order 2·steps − 1 are those that
            the vector sees exactly.

    Returns:
        Spectrum, for ``spectral_sum`` and ``density_on_grid``.

    Raises:
        ValueError: fewer than two probes, no steps, or more than parameters.

    Cost: probes · steps products; memory two bases of steps · parameters, one random
        vector after another.
    Source: Ubaru, Chen & Saad 2017, Fast estimation of tr(f(A)) via stochastic Lanczos
        quadrature, by the library matfree. As published.
    """
    if probes < 2:
        raise ValueError(
            f"spectral_density got probes={probes}, expected at least 2, for a spread"
        )

    def one(own: PRNGKey) -> tuple[Array, Array]:
        start, unravel = _start(own, operator)
        alphas, betas, _ = _lanczos(operator, start, unravel, steps)
        values, vectors = _eigh_tridiagonal(alphas, betas)
        return values, jnp.square(vectors[0])

    nodes, weights = jax.lax.map(one, jax.random.split(key, probes))
    return Spectrum(nodes, weights, jnp.asarray(tree.size(operator.like), nodes.dtype))


def spectral_sum(
    spectrum: Spectrum, function: Callable[[Array], Array] = lambda values: values
) -> Estimate:
    """Σᵢ f(λᵢ) = trace f(A) with its standard error; the trace by default.

    Args:
        spectrum: From ``spectral_density``.
        function: f, elementwise: ``jnp.square`` for ‖A‖², ``jnp.log`` for the log
            determinant.

    Returns:
        Estimate of two scalars; the error is that of the random vectors, not of the
        quadrature, which is exact for polynomials up to order 2·steps − 1.
    """
    shares = spectrum.weights
    # A node outside of the domain of f may carry no weight at all.
    values = jnp.where(shares > 0, function(spectrum.nodes), 0)
    sums = spectrum.size * jnp.sum(shares * values, axis=-1)
    count = sums.shape[-1]
    return Estimate(
        jnp.mean(sums, axis=-1),
        jnp.std(sums, axis=-1, ddof=1) / jnp.sqrt(count).astype(sums.dtype),
    )


def density_on_grid(
    spectrum: Spectrum, grid: Float[Array, " points"], width: Any
) -> Float[Array, " points"]:
    """Share of the eigenvalues per unit of λ, smoothed by a Gaussian; integrates to 1.

    Args:
        spectrum: From ``spectral_density``.
        grid: Where the density is wanted.
        width: Standard deviation of the Gaussian, in the units of the eigenvalues.
    """
    probes = spectrum.nodes.shape[0]
    nodes, weights = spectrum.nodes.reshape(-1), spectrum.weights.reshape(-1) / probes
    apart = (grid[:, None] - nodes[None, :]) / width
    bumps = jnp.exp(-0.5 * jnp.square(apart)) / (width * jnp.sqrt(2 * jnp.pi))
    return exact_product(bumps.astype(nodes.dtype), weights)


def _start(key: PRNGKey, operator: LinearOperator) -> tuple[Array, Any]:
    signs = random_vector(key, operator, jax.random.rademacher)
    return jax.flatten_util.ravel_pytree(signs)


def _flat(vector: Any) -> Array:
    return jax.flatten_util.ravel_pytree(vector)[0]


def _lanczos(
    operator: LinearOperator, start: Array, unravel: Any, steps: int
) -> tuple[Array, Array, Array]:
    """Diagonal and off-diagonal of T, and the basis in columns.

    Where the Krylov space is exhausted, what follows is noise or NaN: it is cut off,
    its diagonal repeats the first entry, which is neither an end nor has weight there.
    """
    if not 1 <= steps <= start.size:
        raise ValueError(
            f"got steps={steps} for an operator on {start.size} parameters, expected 1 "
            f"to {start.size}"
        )
    factorise = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    matvec = as_outside(operator.matvec)  # a model's products stay its own
    with jax.default_matmul_precision("highest"):
        found = factorise(lambda v: _flat(matvec(unravel(v))), start)
    basis, small = jnp.asarray(found.Q_tall).T, jnp.asarray(found.J_small)
    alphas, betas = jnp.diagonal(small), jnp.diagonal(small, -1)
    # β is a length after two projections: noise of this size is rounding.
    scale = jnp.maximum(jnp.abs(alphas[:-1]), betas)
    largest = jax.lax.cummax(jnp.where(jnp.isfinite(scale), scale, 0))
    tolerance = 10 * jnp.finfo(start.dtype).eps * largest
    alive = jnp.cumprod(betas > tolerance) > 0
    kept = jnp.concatenate([jnp.ones(1, bool), alive])
    return (
        jnp.where(kept, alphas, alphas[0]),
        jnp.where(alive, betas, 0),
        jnp.where(kept[None], basis, basis[:, :1]),
    )


def _eigh_tridiagonal(alphas: Array, betas: Array) -> tuple[Array, Array]:
    return jnp.linalg.eigh(jnp.diag(alphas) + jnp.diag(betas, 1) + jnp.diag(betas, -1))
