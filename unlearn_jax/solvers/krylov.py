"""Krylov spaces: Lanczos and Arnoldi, and the inverse on the directions they find."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, block, check_like
from unlearn_jax.loop import fori_loop
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.solvers.preconditioner import check_damping
from unlearn_jax.solvers.refinement import epsilon
from unlearn_jax.solvers.stacked import combine, project, put, take
from unlearn_jax.types import Array, Params, PRNGKey, Scalar
from unlearn_kernels.varying import vary


class LowRank(NamedTuple):
    """Value: some eigenvectors of a symmetric matrix, A ≈ Σᵢ λᵢ qᵢ qᵢᵀ.

    Attributes:
        basis: Orthonormal vectors stacked along the first axis (r, ...).
        eigenvalues: In falling order of magnitude.
    """

    basis: Params
    eigenvalues: Float[Array, " r"]


class SpectralBounds(NamedTuple):
    """Value: what a few Lanczos steps tell about the ends of a spectrum.

    Attributes:
        lowest: Some vector's v·Av / v·v: the lowest eigenvalue is not above it.
        largest: Likewise: the largest eigenvalue is not below it.
        upper: ``largest`` plus the last residual norm: nearly always above the largest
            eigenvalue, but only if the start was not blind to its eigenvector.
    """

    lowest: Scalar
    largest: Scalar
    upper: Scalar


@automatic
def lanczos(
    key: PRNGKey,
    operator: LinearOperator,
    *,
    rank: int,
    steps: int | None = None,
    start: Params | None = None,
) -> LowRank:
    """Eigenvectors of the eigenvalues of largest magnitude.

    Every new direction is orthogonalised against all before it, twice. Where the space
    closes (an eigenvalue that repeats, a matrix of low rank) a random direction opens
    it again.

    The matrix projected on the space is symmetrised, so a product that is symmetric
    only up to float32 rounding, or not at all, is served as well: that is the Arnoldi
    iteration, which keeps the symmetric part of its Hessenberg matrix.

    Args:
        key: Draws the start, and new directions where the space closes.
        operator: A.
        rank: Eigenvectors to keep.
        steps: Directions to search, at least ``rank``; by default 2 rank + 10 or all.
            Kept pairs are accurate when well apart from those left out; see
            :func:`eigen_residuals`.
        start: First direction; random if None.

    Returns:
        LowRank.

    Raises:
        ValueError: ``rank`` is not between 1 and ``steps``, or ``steps`` above the
            number of parameters.

    Cost: ``steps`` products, 6 steps² inner products; memory steps + rank vectors.
    Source: Lanczos 1950 with full reorthogonalisation; Arnoldi for influence as in
        Schioppa et al. 2022, arXiv 2112.03052. Differs: the symmetric part
        replaces their symmetrising at random restarts.
    """
    size = tree.size(operator.like)
    steps = min(2 * rank + 10, size) if steps is None else steps
    if not 1 <= rank <= steps <= size:
        raise ValueError(
            f"got rank {rank} and {steps} steps for {size} parameters; expected "
            f"1 <= rank <= steps <= {size}"
        )
    first_key, key = jax.random.split(key)
    if start is None:
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.like)
        start = tree.random_like(first_key, zeros, jax.random.normal)
    check_like(operator.like, start, "start")
    start = vary(start, operator.like)
    basis, projected = _arnoldi(key, operator, start, steps)
    values, vectors = jnp.linalg.eigh((projected + projected.T) / 2)
    order = jnp.argsort(-jnp.abs(values))[:rank]
    return LowRank(combine(vectors[:, order].T, basis), values[order])


def eigen_residuals(operator: LinearOperator, low_rank: LowRank) -> Float[Array, " r"]:
    """‖A qᵢ − λᵢ qᵢ‖: an eigenvalue of A lies this close to λᵢ.

    Cost: r products.
    """
    products = block(operator, low_rank.basis)
    scaled = jax.vmap(tree.scale)(low_rank.eigenvalues, low_rank.basis)
    return jax.vmap(tree.norm)(tree.subtract(products, scaled))


def low_rank_inverse(
    low_rank: LowRank, vector: Params, *, damping: Any, complement: bool = False
) -> Params:
    """Q (Λ + δ)⁻¹ Qᵀ v, and (I − Q Qᵀ) v / δ with the complement.

    With the complement this is the inverse of A + δ I where A is zero outside of Q;
    without, what lies outside of Q is dropped.

    Args:
        low_rank: Q and Λ.
        vector: v.
        damping: δ, positive; larger than the magnitude of any negative eigenvalue if
            the inverse shall be positive definite.
        complement: Whether to keep what lies outside of Q.

    Raises:
        ValueError: a concrete ``damping`` that is not positive.

    Cost: 2 r inner products.
    Source: Schioppa et al. 2022, arXiv 2112.03052. Differs: theirs has neither
        damping nor complement.
    """
    check_damping(damping, "low-rank curvature")
    values = low_rank.eigenvalues
    share = project(low_rank.basis, vector)
    if not complement:
        return combine(share / (values + damping), low_rank.basis)
    # (λ + δ)⁻¹ = δ⁻¹ − λ / (δ (λ + δ)): what is outside needs no difference.
    change = combine(-share * values / (values + damping), low_rank.basis)
    return tree.scale(1 / jnp.asarray(damping), tree.add(vector, change))


def spectral_bounds(
    operator: LinearOperator, start: Params, *, steps: int = 10
) -> SpectralBounds:
    """Bounds on the ends of the spectrum, as far as ``start`` can see it.

    Args:
        operator: A.
        start: First direction, not zero: a random one, or the right-hand side of an
            iteration whose Krylov space is to be bounded.
        steps: Lanczos steps, without reorthogonalisation.

    Cost: ``steps`` products; memory three vectors.
    Source: Zhou, Saad, Tiago & Chelikowsky 2006, Phys. Rev. E 74, 066704 (the
        upper bound). Differs: their bound adds the norm of the last residual to the
        norm of the projected matrix, ours to its largest eigenvalue.
    """
    start = vary(start, operator.like)
    size = tree.norm(start)
    v = tree.scale(1 / jnp.where(size > 0, size, 1), start)
    tiny = epsilon(start)

    def step(i: Any, state: Any) -> Any:
        v, v_old, beta, alphas, betas = state
        alpha, beta_next, v_next = three_term(operator, v, v_old, beta)
        closed = beta_next <= 10 * tiny * (jnp.abs(alpha) + beta)
        v_next = tree.where(closed, tree.zeros_like(v), v_next)
        beta_next = jnp.where(closed, 0, beta_next)
        # Once the space has closed, the vectors are zero and so are their entries:
        # repeating the first entry adds nothing to the spectrum.
        alpha = jnp.where((i > 0) & (beta == 0), alphas[0], alpha)
        return v_next, v, beta_next, alphas.at[i].set(alpha), betas.at[i].set(beta_next)

    empty = jnp.zeros(steps, size.dtype)
    state = (v, tree.zeros_like(v), jnp.zeros_like(size), empty, empty)
    *_, alphas, betas = fori_loop(0, steps, step, state)
    off = betas[: steps - 1]
    matrix = jnp.diag(alphas) + jnp.diag(off, 1) + jnp.diag(off, -1)
    finite = jnp.all(jnp.isfinite(matrix))
    safe = jnp.where(finite, matrix, jnp.eye(steps, dtype=matrix.dtype))
    values = jnp.where(finite, jnp.linalg.eigvalsh(safe), jnp.nan)
    return SpectralBounds(values[0], values[-1], values[-1] + betas[-1])


def three_term(
    operator: LinearOperator, v: Params, v_old: Params, beta: Array
) -> tuple[Array, Array, Params]:
    """One Lanczos step: A v = beta v_old + alpha v + beta_next v_next.

    Returns:
        (alpha, beta_next, v_next); ``v_next`` is zero where ``beta_next`` is.
    """
    product = operator.matvec(v)
    alpha = tree.dot(v, product)
    # The dtypes of v stay, whatever the product returns.
    rest = jax.tree.map(
        lambda a, b, c: (a - alpha * b - beta * c).astype(b.dtype), product, v, v_old
    )
    beta_next = tree.norm(rest)
    inverse = jnp.where(beta_next > 0, 1 / jnp.where(beta_next > 0, beta_next, 1), 0)
    return alpha, beta_next, tree.scale(inverse, rest)


def _arnoldi(
    key: PRNGKey, operator: LinearOperator, start: Params, steps: int
) -> tuple[Params, Array]:
    """Orthonormal basis Q of the Krylov space (steps, ...) and Qᵀ A Q."""
    tiny = epsilon(start)

    def clear(basis: Params, w: Params) -> tuple[Params, Array]:
        share = project(basis, w)
        return tree.subtract(w, combine(share, basis)), share

    def unit(w: Params) -> Params:
        size = tree.norm(w)
        return tree.scale(1 / jnp.where(size > 0, size, 1), w)

    def step(j: Any, state: Any) -> Any:
        basis, projected = state
        product = operator.matvec(take(basis, j))
        scale = tree.norm(product)
        w = jax.tree.map(lambda a, b: a.astype(b.dtype), product, start)
        w, first = clear(basis, w)
        w, second = clear(basis, w)
        beta = tree.norm(w)
        closed = beta <= 10 * tiny * scale
        # A random direction is full of the old ones: clear it once more.
        drawn = tree.random_like(jax.random.fold_in(key, j), start, jax.random.normal)
        w = tree.where(closed, unit(drawn), unit(w))
        for _ in range(2):
            w = unit(clear(basis, w)[0])
        column = (first + second).at[j + 1].add(jnp.where(closed, 0, beta), mode="drop")
        basis = jax.tree.map(
            lambda b, v: b.at[j + 1].set(v.astype(b.dtype), mode="drop"), basis, w
        )
        return basis, projected.at[:, j].set(column)

    empty = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype), start)
    basis = put(empty, 0, unit(start))
    dtype = tree.norm(start).dtype
    return fori_loop(0, steps, step, (basis, jnp.zeros((steps, steps), dtype)), key)
