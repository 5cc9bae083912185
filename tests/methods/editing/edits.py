"""Maps and keys for tests of editing; the normal equations by numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.methods.editing.maps import stacked

D = 8
SIZES = {"k": (4, 3), "v": (4, 2)}
"""Outputs of the K and V maps of two layers."""


def maps(seed=0, d=D, dtype: type = np.float64):
    random = np.random.default_rng(seed)
    return {
        name: [jnp.asarray(random.normal(size=(d, k)), dtype) for k in sizes]
        for name, sizes in SIZES.items()
    }


def keys(n, seed=1, d=D, dtype: type = np.float64):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def whole(tree):
    """All maps as one matrix in numpy."""
    return np.asarray(stacked(tree))


def normal(before, rows, l2):
    """The edited maps as one matrix."""
    return whole(before) + normal_change(rows, l2)


def normal_change(rows, l2):
    """The least-squares solution of the stacked system, by numpy in float64."""
    c, s, w = (np.asarray(leaf, np.float64) for leaf in rows)
    root = np.sqrt(w)[:, None]
    d = c.shape[1]
    left = np.concatenate([root * c, np.sqrt(l2) * np.eye(d)])
    right = np.concatenate([root * s, np.zeros((d, s.shape[1]))])
    return np.linalg.lstsq(left, right, rcond=None)[0]


def same_bits(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
