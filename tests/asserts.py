"""One comparison of pytrees: structure, then dtype, then values."""

import jax
import numpy as np

_RTOL = {"float64": 1e-10, "float32": 3e-3, "bfloat16": 5e-2, "float16": 2e-2}


def assert_trees_close(actual, expected, *, rtol=None, atol=0.0, dtypes=True):
    """Fail unless both trees agree; default ``rtol`` by the expected leaf's dtype."""
    got, want = jax.tree.structure(actual), jax.tree.structure(expected)
    assert got == want, f"structures differ:\n  {got}\n  {want}"
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree.leaves(expected),
        strict=True,
    )
    for (path, a), e in pairs:
        a, e = np.asarray(a), np.asarray(e)
        name = jax.tree_util.keystr(path) or "the leaf"
        assert a.shape == e.shape, f"{name}: shape {a.shape}, expected {e.shape}"
        if dtypes:
            assert a.dtype == e.dtype, f"{name}: dtype {a.dtype}, expected {e.dtype}"
        tolerance = _RTOL.get(str(e.dtype), 0.0) if rtol is None else rtol
        np.testing.assert_allclose(
            a.astype(np.float64) if a.dtype.kind in "fV" else a,
            e.astype(np.float64) if e.dtype.kind in "fV" else e,
            rtol=tolerance,
            atol=atol,
            err_msg=name,
        )
