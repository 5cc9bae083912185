"""Conjugate gradients, for one right-hand side and for a block of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, block
from unlearn_jax.loop import while_loop
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.solvers.refinement import RUNNING, either, epsilon, refine
from unlearn_jax.solvers.solution import (
    INDEFINITE,
    NOT_FINITE,
    OUT_OF_STEPS,
    PRECONDITIONER,
    STAGNATED,
    Solution,
)
from unlearn_jax.solvers.stacked import combine, gram, orthonormalise
from unlearn_jax.types import Array, Params
from unlearn_kernels.precision import EXACT, exact_product

_GROWTH = 100.0
"""Residual norms may rise on the way, by √(condition number); past this, x is noise."""


class _Single(NamedTuple):
    """Value: x, residual r, direction p, r·z, ‖r‖.

    span: p·M⁻¹p of the preconditioner M, which is p·p without one; top, width: the
    largest p·Ap over p·M⁻¹p and over p·p.
    """

    x: Params
    r: Params
    p: Params
    rz: Array
    size: Array
    span: Array
    top: Array
    width: Array
    steps: Array
    code: Array


class _Block(NamedTuple):
    """Value: x, residual = q c, duals w = M q, directions p, which of them live.

    span, top, width: as in :class:`_Single`, ``span`` a matrix.
    """

    x: Params
    q: Params
    w: Params
    p: Params
    c: Array
    live: Array
    span: Array
    top: Array
    width: Array
    sizes: Array
    steps: Array
    code: Array


@automatic
def conjugate_gradient(
    operator: LinearOperator,
    rhs: Params,
    *,
    start: Params | None = None,
    preconditioner: Callable[[Any], Any] | None = None,
    tol: float = 1e-6,
    max_steps: int = 100,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A.

    Args:
        operator: A; damp it first where the curvature is flat or negative.
        rhs: b, like what the operator acts on.
        start: First x; zero if None.
        preconditioner: Symmetric positive definite approximation of A⁻¹, a function
            from vectors to vectors.
        tol: Bound on ‖A x − b‖ / ‖b‖ (no unit).
        max_steps: Most steps.

    Returns:
        Solution. A direction with p·Ap ≤ 0 up to rounding, a product that is not
        finite, or a preconditioner that is not positive definite ends the iteration;
        the value is the iterate before that, or the start if that iterate's residual
        norm is more than 100 times larger.

    Raises:
        ValueError: ``rhs`` or ``start`` is not like what the operator acts on.

    Cost: one product and one preconditioning per step, plus one product to confirm
        the residual; memory seven vectors.
    Source: Hestenes & Stiefel 1952, §3, preconditioned. Differs: the residual is
        confirmed, see :func:`unlearn_jax.solvers.refinement.refine`.
    """
    correct = _vectorwise(operator, preconditioner, epsilon(rhs), max_steps)
    return refine(
        *(correct, operator, rhs),
        start=start,
        tol=tol,
        max_steps=max_steps,
        growth=_GROWTH,
    )


@automatic
def block_conjugate_gradient(
    operator: LinearOperator,
    rhs_block: Params,
    *,
    preconditioner: Callable[[Any], Any] | None = None,
    tol: float = 1e-6,
    max_steps: int = 100,
) -> Solution:
    """Solve A X = B for several right-hand sides that share one Krylov space.

    Each step multiplies A with a block of k directions, and every right-hand side
    searches all of them. Where A has a few eigenvalues far from the others this takes
    fewer steps than k separate solves. The block of residuals is kept as an
    orthonormal basis times coefficients; a residual that depends on others leaves the
    basis, so that repeated or zero right-hand sides do no harm. Rounding makes the
    directions dependent where A is ill-conditioned, and their curvatures look like
    those of a matrix that is not positive definite; each right-hand side then goes on
    alone, from where the block has brought it.

    Args:
        operator: A, symmetric positive definite.
        rhs_block: B, k vectors stacked along the first axis.
        preconditioner: As in :func:`conjugate_gradient`, on one vector.
        tol: Bound on ‖A x − b‖ / ‖b‖ for each right-hand side (no unit).
        max_steps: Most steps, each with one product with a block.

    Returns:
        Solution; ``residual``, ``steps``, ``converged`` and ``code`` of shape (k,). The
        steps of a right-hand side are those after which its own residual was small,
        with the block and alone. Only a direction of its own ends it for its curvature,
        as in :func:`conjugate_gradient`.

    Raises:
        ValueError: the members of ``rhs_block`` are not like what the operator acts on.

    Cost: k products at once per step, and some 8 k² inner products' worth of memory
        traffic, so it pays where a product is dear; memory six blocks.
    Source: O'Leary 1980, Linear Algebra Appl. 29, in the orthonormalised form of
        Dubrulle 2001, ETNA 12 (BCGrQ). Differs: dependent residuals are dropped, the
        block is left where its directions have become dependent, and the residual is
        confirmed, see :func:`unlearn_jax.solvers.refinement.refine`.
    """
    prepare = None if preconditioner is None else jax.vmap(preconditioner)
    tiny, choose = epsilon(rhs_block), jax.vmap(tree.where)
    finish = _vectorwise(operator, preconditioner, tiny, max_steps)

    def factor(vectors: Params, floor: float) -> Any:
        return orthonormalise(vectors, prepare and prepare(vectors), floor=floor)

    def sizes_of(q: Params, c: Array) -> Array:
        return jnp.sqrt(
            jnp.maximum(jnp.einsum("ij,il,lj->j", c, gram(q, q), c, precision=EXACT), 0)
        )

    def correct(residual: Params, target: Array, steps: Array) -> Any:
        def step(s: _Block) -> _Block:
            product = block(operator, s.p)
            bent = gram(s.p, product)
            # A direction that left the block is zero; one in its place of the
            # diagonal keeps the matrix regular.
            root = jnp.linalg.cholesky(bent + _unit(~s.live))
            spans = jnp.diag(s.span)
            top = jnp.maximum(s.top, jnp.max(jnp.diag(bent) / spans))
            lengths = spans if prepare is None else jax.vmap(tree.dot)(s.p, s.p)
            stretch = jnp.diag(bent) / jnp.where(s.live, lengths, 1)
            width = jnp.maximum(s.width, jnp.max(stretch))
            finite = jnp.all(jnp.isfinite(bent))
            # Below this, what a pivot holds is the rounding of the product.
            least = jnp.diag(jnp.linalg.cholesky(s.span)) ** 2
            sure = jnp.diag(root) ** 2 > tiny * top * least
            good = jnp.all(jnp.isfinite(root)) & jnp.all(sure | ~s.live)
            unit = _unit(jnp.ones_like(s.live))
            inverse = jax.scipy.linalg.cho_solve(
                (jnp.where(good, root, unit), True), unit
            )
            x = tree.add(s.x, combine(exact_product(inverse, s.c).T, s.p))
            q, w, change = factor(
                tree.subtract(s.q, combine(inverse.T, product)), floor=1.0
            )
            p = tree.add(w, combine(change, s.p))
            c = exact_product(change, s.c)
            sizes = sizes_of(q, c)
            done = s.steps + (s.sizes > target)
            good &= jnp.all(sizes <= highest)
            lost = jnp.where(finite, STAGNATED, NOT_FINITE)
            code = jnp.where(good, RUNNING, lost).astype(jnp.int32)
            span = unit + exact_product(exact_product(change.T, s.span), change)
            live = jnp.diag(change) > 0
            new = _Block(x, q, w, p, c, live, span, top, width, sizes, done, code)
            stay = s._replace(steps=done, code=code)
            return either(good, new, stay)

        def go_on(s: _Block) -> Array:
            more = jnp.any(s.live) & jnp.any(s.sizes > target)
            return (s.code == RUNNING) & more & (jnp.max(s.steps) < max_steps)

        q, w, c = factor(residual, floor=0.0)
        code = jnp.asarray(RUNNING, jnp.int32)
        if prepare is not None:
            z = prepare(residual)
            lowest = jnp.min(jax.vmap(tree.dot)(residual, z))
            code = jnp.where(lowest < 0, PRECONDITIONER, code)
        zero = tree.zeros_like(residual)
        sizes = jax.vmap(tree.norm)(residual)
        # A regular matrix lets them grow by √(condition number), at most by this.
        highest = jnp.maximum(sizes, target) * tiny**-0.5
        live, none = jnp.diag(c) > 0, jnp.zeros((), sizes.dtype)
        span = _unit(jnp.ones_like(live)).astype(c.dtype)
        first = _Block(
            *(zero, q, w, w, c, live, span, none, none, sizes, steps, code),
        )
        last = while_loop(go_on, step, first)
        short = last.sizes <= target
        code = jnp.where(short, RUNNING, last.code)
        late = ~short & (last.code == RUNNING) & (last.steps >= max_steps)
        code = jnp.where(late, OUT_OF_STEPS, code)
        # Directions that have become dependent give such a pivot too. Only a single
        # one can tell what the matrix is, and each column goes on alone.
        alone = code == STAGNATED
        rest = choose(alone, combine(last.c.T, last.q), tree.zeros_like(residual))
        more, steps, width, found = jax.vmap(finish, (0, 0, 0, None))(
            *(rest, target, last.steps, last.top),
        )
        width = jnp.maximum(last.width, width)
        return tree.add(last.x, more), steps, width, jnp.where(alone, found, code)

    return refine(
        *(correct, operator, rhs_block),
        tol=tol,
        max_steps=max_steps,
        growth=_GROWTH,
        over=jax.vmap,
    )


def _vectorwise(
    operator: LinearOperator,
    preconditioner: Callable[[Any], Any] | None,
    tiny: float,
    max_steps: int,
) -> Callable[..., Any]:
    """The iteration on one vector, as :func:`refine` wants it.

    Its last argument is a ``top``, see :class:`_Single`, that was met before.
    """
    prepare = preconditioner or _same

    def correct(residual: Params, target: Array, steps: Array, top: Any = 0.0) -> Any:
        def step(s: _Single) -> _Single:
            product = operator.matvec(s.p)
            curvature = tree.dot(s.p, product)
            top = jnp.maximum(s.top, curvature / s.span)
            # Below this, a curvature is the rounding of the product.
            sure = curvature > tiny * top * s.span
            good = jnp.isfinite(curvature) & sure
            alpha = jnp.where(good, s.rz / jnp.where(good, curvature, 1), 0)
            # Chosen, not only multiplied by zero: the product may hold NaN.
            x = tree.where(good, tree.axpy(alpha, s.p, s.x), s.x)
            r = tree.where(good, tree.axpy(-alpha, product, s.r), s.r)
            z = prepare(r)
            rz = tree.dot(r, z)
            beta = rz / s.rz
            p = tree.axpy(beta, s.p, z)
            length = s.span if preconditioner is None else tree.dot(s.p, s.p)
            width = jnp.maximum(s.width, curvature / length)
            size = tree.norm(r)
            code = jnp.where(size > target, _sign_code(rz, PRECONDITIONER), RUNNING)
            code = jnp.where(size > highest, INDEFINITE, code)
            lost = jnp.where(jnp.isfinite(curvature), INDEFINITE, NOT_FINITE)
            return _Single(
                *(x, r, p, rz, size, rz + beta**2 * s.span, top),
                *(jnp.where(good, width, s.width), s.steps + 1),
                jnp.where(good, code, lost).astype(jnp.int32),
            )

        def go_on(s: _Single) -> Array:
            return (s.code == RUNNING) & (s.size > target) & (s.steps < max_steps)

        z = prepare(residual)
        rz, size = tree.dot(residual, z), tree.norm(residual)
        # A regular matrix lets it grow by √(condition number), at most by this.
        highest = size * tiny**-0.5
        code = _sign_code(rz, PRECONDITIONER)
        zero, none = tree.zeros_like(residual), jnp.zeros_like(size)
        first = _Single(
            *(zero, residual, z, rz, size, rz, none + top, none, steps, code),
        )
        last = while_loop(go_on, step, first)
        late = (last.code == RUNNING) & (last.size > target)
        code = jnp.where(late, OUT_OF_STEPS, last.code)
        return last.x, last.steps, last.width, code

    return correct


def _unit(places: Array) -> Array:
    """The unit matrix in these places, zero in the others."""
    return jnp.diag(places.astype(jnp.float32))


def _same(vector: Params) -> Params:
    return vector


def _sign_code(product: Array, code: int) -> Array:
    """Running while positive; ``code`` when not; not finite when it is not."""
    answer = jnp.where(product > 0, RUNNING, code)
    return jnp.where(jnp.isfinite(product), answer, NOT_FINITE).astype(jnp.int32)
