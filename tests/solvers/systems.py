"""Linear systems on a tree of two leaves, with a spectrum that is chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.curvature.operator import linear_operator

SIZE = 12


def matrix_with(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    random = np.random.default_rng(seed)
    count = len(eigenvalues)
    vectors, _ = np.linalg.qr(random.normal(size=(count, count)))
    return (vectors * np.asarray(eigenvalues)) @ vectors.T


def to_tree(flat):
    """(..., p) numbers as a tree; leading axes stay."""
    flat = jnp.asarray(flat)
    lead = flat.shape[:-1]
    return {"bias": flat[..., :2], "kernel": flat[..., 2:].reshape(*lead, 2, -1)}


def to_flat(tree):
    lead = tree["bias"].shape[:-1]
    return jnp.concatenate([tree["bias"], tree["kernel"].reshape(*lead, -1)], axis=-1)


def operator_with(matrix):
    like = jax.eval_shape(to_tree, jax.ShapeDtypeStruct(matrix.shape[:1], matrix.dtype))
    return linear_operator(lambda v: to_tree(matrix @ to_flat(v)), like)


def right_side(seed=1, count=SIZE, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=count).astype(dtype)


def true_residual(matrix, value, rhs):
    """‖A x − b‖ / ‖b‖ in float64, by numpy."""
    matrix, rhs = np.asarray(matrix, np.float64), np.asarray(rhs, np.float64)
    value = np.asarray(to_flat(value), np.float64)
    return np.linalg.norm(matrix @ value - rhs) / np.linalg.norm(rhs)


def chain(size, poisoned):
    """Neighbours coupled; NaN as soon as entry ``poisoned`` of the vector is met.

    From the first unit vector a Krylov space reaches one entry further in every step.
    """

    def matvec(v):
        product = 3 * v - jnp.roll(v, 1).at[0].set(0) - jnp.roll(v, -1).at[-1].set(0)
        return jnp.where(v[poisoned] != 0, jnp.nan, product)

    first = jnp.zeros(size).at[0].set(1.0)
    return linear_operator(matvec, first), first
