"""Derivatives of a solve: those of A⁻¹ b, not of the steps that found it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.placement import agreed
from unlearn_jax.solvers.solution import Solution
from unlearn_jax.types import Params
from unlearn_kernels.varying import vary, varying_axes


def implicit(
    run: Callable[[Any, Any], Solution],
    matvec: Callable[[Any], Any],
    rhs: Params,
    start: Params | None = None,
) -> Solution:
    """``run(rhs, start)``, with dx = A⁻¹ (db − dA x) as its derivative in either mode.

    A tangent or cotangent is solved for by the same iteration, from zero and with the
    same bounds; how far it came is told nowhere, but it is another right-hand side of
    the same matrix. The derivative with respect to the start and whatever else ``run``
    closes over is zero, and so is that of all fields but the value.

    Args:
        run: ``(rhs, start) -> Solution``; need not be differentiable.
        matvec: A, symmetric or Hermitian, on trees like ``rhs``.
        rhs: b.
        start: First x; zero if None.

    Cost: that of ``run``; for a derivative one more of it, and of one product.
    Source: Blondel et al. 2022, arXiv 2105.15183, by ``jax.lax.custom_linear_solve``.
    """
    rhs = jax.tree.map(jnp.asarray, rhs)

    def exactly(vector: Params) -> Params:
        product = matvec(vector)
        product = jax.tree.map(lambda p, b: p.astype(b.dtype), product, rhs)
        return vary(product, rhs)

    @jax.jit  # traced once for the solve and for its transpose
    def solved(right: Params) -> Any:
        first = start
        if start is not None:
            # The right-hand side may be a tangent, whose solution is elsewhere.
            same = jax.tree.map(lambda r, b: jnp.all(r == b), right, rhs)
            own = jax.tree.reduce(jnp.logical_and, same, jnp.asarray(True))
            first = tree.where(own, start, tree.zeros_like(start))
        found = run(right, first)
        return found.value, found[1:]

    def transposed(_: Any, right: Params) -> Any:
        # The transpose of a Hermitian matrix is its conjugate.
        value, rest = solved(_conjugate(right))
        return _conjugate(value), rest

    # JAX wants a solve whose operands vary alike, though its operator may sum over the
    # mesh what varies, so that the answer does not.
    apart: tuple[str, ...] = ()
    if jax.sharding.get_abstract_mesh().manual_axes:
        read = jax.make_jaxpr(solved)(rhs).consts
        own = varying_axes((rhs, jax.eval_shape(solved, rhs)))
        apart = tuple(axis for axis in varying_axes(read) if axis not in own)
        rhs = vary(rhs, read)
    value, rest = jax.lax.custom_linear_solve(
        exactly,
        rhs,
        lambda _, right: solved(right),
        transposed,
        symmetric=True,
        has_aux=True,
    )
    return Solution(*agreed((value, *rest), apart))


def _conjugate(vector: Params) -> Params:
    return jax.tree.map(jnp.conj, vector)
