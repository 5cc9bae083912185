"""Strict settings for every test: x64, no silent broadcasting, shapes checked."""

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

_HOOK = install_import_hook(["unlearn_jax", "unlearn_kernels"], "beartype.beartype")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(scope="module")
def quick_compile():
    """Programs of a test file compile in half the time, and run slower."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
