"""Diagonal and trace of an operator from products with random vectors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator
from unlearn_jax.loop import scan
from unlearn_jax.types import Array, Estimate, Params, PRNGKey
from unlearn_kernels.precision import EXACT
from unlearn_kernels.target import target_platform


def random_vector(
    key: PRNGKey, operator: LinearOperator, sampler: Callable[..., Any]
) -> Params:
    """Independent draws of ``sampler(key, shape, dtype)`` that the operator takes."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), operator.like)
    return tree.random_like(key, zeros, sampler)


def hutchinson_diagonal(
    key: PRNGKey,
    operator: LinearOperator,
    *,
    probes: int,
    block_size: int | None = None,
) -> Estimate:
    """The diagonal as the mean of z ⊙ A z over random signs z.

    The variance of entry i is Σ_{j≠i} Aᵢⱼ² / probes: a diagonal matrix is found
    exactly.

    Args:
        key: Random key.
        operator: Symmetric.
        probes: Random vectors, at least 2.
        block_size: Vectors multiplied at once; None takes 1 on CPU, where one product
            stays in the cache, and 8 elsewhere.

    Returns:
        Estimate shaped like params: unbiased, and its standard error from the spread.

    Raises:
        ValueError: fewer than two probes, or an empty block.

    Cost: ``probes`` products, rounded up to full blocks; memory block_size vectors.
    Source: Hutchinson 1990; for diagonals Bekas et al. 2007. As published.
    """

    def sample(own: PRNGKey) -> Params:
        signs = random_vector(own, operator, jax.random.rademacher)
        return jax.tree.map(jnp.multiply, signs, operator.matvec(signs))

    return _monte_carlo(jax.random.split(key, probes), sample, probes, block_size)


def hutchinson_trace(
    key: PRNGKey,
    operator: LinearOperator,
    *,
    probes: int,
    block_size: int | None = None,
) -> Estimate:
    """The trace as the mean of zᵀ A z over random signs z.

    Args:
        key: Random key.
        operator: Symmetric.
        probes: Random vectors, at least 2.
        block_size: Vectors multiplied at once; None takes 1 on CPU, where one product
            stays in the cache, and 8 elsewhere.

    Returns:
        Estimate of two scalars: unbiased, and its standard error from the spread.

    Raises:
        ValueError: fewer than two probes, or an empty block.

    Cost: ``probes`` products, rounded up to full blocks; memory block_size vectors.
    Source: Hutchinson 1990, A stochastic estimator of the trace. As published.
    """

    def sample(own: PRNGKey) -> Array:
        signs = random_vector(own, operator, jax.random.rademacher)
        return tree.dot(signs, operator.matvec(signs))

    return _monte_carlo(jax.random.split(key, probes), sample, probes, block_size)


def bekas_diagonal(
    key: PRNGKey,
    operator: LinearOperator,
    *,
    probes: int,
    kind: str = "gaussian",
    block_size: int | None = None,
) -> Estimate:
    """The diagonal as Σ z ⊙ A z / Σ z ⊙ z over probes z.

    Args:
        key: Random key.
        operator: Symmetric.
        probes: Vectors z, at least 2. With "hadamard" at most the next power of two
            from the number of parameters, where the diagonal is exact.
        kind: "gaussian" draws; "hadamard" takes rows of a Hadamard matrix, drawn
            without replacement.
        block_size: Vectors multiplied at once; None takes 1 on CPU, where one product
            stays in the cache, and 8 elsewhere.

    Returns:
        Estimate shaped like params. The standard error comes from the spread over
        probes: by the delta method for the ratio of "gaussian" (biased by O(1/probes)),
        with the correction for a finite population for "hadamard" (unbiased).

    Raises:
        ValueError: fewer than two probes, more than rows, an unknown kind, or an empty
            block.

    Cost: ``probes`` products, rounded up to full blocks; memory block_size vectors; a
        permutation of the rows for "hadamard".
    Source: Bekas, Kokiopoulou & Saad 2007, An estimator for the diagonal of a matrix,
        §2. Differs: the Hadamard rows are drawn at random, not the first ones, for a
        bound on the error that does not rest on where large entries lie.
    """
    if kind == "hadamard":
        return _hadamard_diagonal(key, operator, probes, block_size)
    if kind != "gaussian":
        raise ValueError(
            f"bekas_diagonal got kind={kind!r}, expected 'gaussian' or 'hadamard'"
        )

    def sample(own: PRNGKey) -> dict[str, Params]:
        z = random_vector(own, operator, jax.random.normal)
        numerator = jax.tree.map(jnp.multiply, z, operator.matvec(z))
        return {"x": numerator, "y": jax.tree.map(jnp.square, z)}

    keys = jax.random.split(key, probes)
    mean, scatter = _moments(keys, sample, probes, block_size, cross=True)
    value = jax.tree.map(jnp.divide, mean["x"], mean["y"])
    # Var(x̄/ȳ) ≈ Var(x - r y) / ȳ², r the ratio.
    spread = jax.tree.map(
        lambda r, xx, xy, yy: xx - 2 * r * xy + r**2 * yy,
        value,
        scatter["xx"],
        scatter["xy"],
        scatter["yy"],
    )
    stderr = jax.tree.map(
        lambda s, y: _stderr(s, probes) / y.astype(s.dtype), spread, mean["y"]
    )
    return Estimate(value, stderr)


def _hadamard_diagonal(
    key: PRNGKey, operator: LinearOperator, probes: int, block_size: int | None
) -> Estimate:
    rows = 1 << max(tree.size(operator.like) - 1, 1).bit_length()
    if probes > rows:
        raise ValueError(
            f"bekas_diagonal got probes={probes}, expected at most the {rows} rows of "
            f"the Hadamard matrix, where the diagonal is exact"
        )
    shapes, structure = jax.tree.flatten(operator.like)
    sizes = [tree.size(shape) for shape in shapes]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]

    def sample(row: Array) -> Params:
        def signs(start: int, shape: Any) -> Array:
            index = jnp.arange(start, start + tree.size(shape), dtype=jnp.uint32)
            odd = jax.lax.population_count(index & row) & 1
            return (1 - 2 * odd.astype(jnp.int32)).reshape(shape.shape)

        z = [
            signs(start, shape).astype(shape.dtype)
            for start, shape in zip(starts, shapes, strict=True)
        ]
        z = jax.tree.unflatten(structure, z)
        return jax.tree.map(jnp.multiply, z, operator.matvec(z))

    drawn = jax.random.permutation(key, jnp.arange(rows, dtype=jnp.uint32))[:probes]
    estimate = _monte_carlo(drawn, sample, probes, block_size)
    factor = ((rows - probes) / (rows - 1)) ** 0.5
    return estimate._replace(stderr=tree.scale(factor, estimate.stderr))


def _monte_carlo(
    draws: Array, sample: Callable[[Any], Any], probes: int, block_size: int | None
) -> Estimate:
    mean, scatter = _moments(draws, sample, probes, block_size)
    return Estimate(mean, jax.tree.map(lambda s: _stderr(s, probes), scatter))


def _stderr(scatter: Array, probes: int) -> Array:
    return jnp.sqrt(jnp.maximum(scatter, 0) / (probes * (probes - 1)))


def _moments(
    draws: Array,
    sample: Callable[[Any], Any],
    probes: int,
    block_size: int | None,
    *,
    cross: bool = False,
) -> tuple[Any, Any]:
    """Mean of ``sample`` over the draws, and Σ of squared deviations from it.

    Block by block, merged by Chan's update: no difference of large sums. With ``cross``
    the sample is {"x", "y"} and the scatter {"xx", "xy", "yy"}.
    """
    if block_size is None:
        block_size = 1 if target_platform() == "cpu" else 8
    if probes < 2 or block_size < 1:
        raise ValueError(
            f"got {probes} probes in blocks of {block_size}, expected at least 2, for "
            f"a spread, in blocks of at least 1"
        )
    size = min(block_size, probes)
    blocks = -(-probes // size)
    missing = blocks * size - probes
    draws = jnp.concatenate([draws, draws[:missing]]).reshape(blocks, size)
    counted = (jnp.arange(blocks * size) < probes).reshape(blocks, size)

    def deviations(a: Any) -> Any:
        if not cross:
            return jax.tree.map(jnp.square, a)
        pairs = {"xx": ("x", "x"), "xy": ("x", "y"), "yy": ("y", "y")}
        return {
            k: jax.tree.map(jnp.multiply, a[i], a[j]) for k, (i, j) in pairs.items()
        }

    def one_block(state: Any, block: Any) -> Any:
        mean, scatter, before = state
        own, weights = block
        samples = jax.vmap(sample)(own)
        count = jnp.sum(weights, dtype=jnp.int32)
        after = before + count

        def total(leaf: Array) -> Array:
            return jnp.tensordot(
                weights.astype(leaf.dtype), leaf, axes=1, precision=EXACT
            )

        def ratio(numerator: Array, denominator: Array, leaf: Array) -> Array:
            return leaf * (
                numerator.astype(leaf.dtype) / denominator.astype(leaf.dtype)
            )

        one = jnp.ones((), jnp.int32)
        here = jax.tree.map(lambda s: ratio(one, count, total(s)), samples)
        apart = jax.tree.map(lambda s, m: s - m[None], samples, here)
        within = jax.tree.map(total, deviations(apart))
        gap = tree.subtract(here, mean)
        mean = jax.tree.map(lambda m, g: m + ratio(count, after, g), mean, gap)
        between = jax.tree.map(
            lambda d: ratio(before * count, after, d), deviations(gap)
        )
        scatter = jax.tree.map(lambda *parts: sum(parts), scatter, within, between)
        return (mean, scatter, after), None

    shape = jax.eval_shape(sample, draws[0, 0])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
    start = (zeros, deviations(zeros), jnp.zeros((), jnp.int32))
    (mean, scatter, _), _ = scan(one_block, start, (draws, counted), shape)
    return mean, scatter
