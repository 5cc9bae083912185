"""Strict settings for every test: x64, no silent broadcasting, shapes checked."""

import gc

import compiling
import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
compiling.keep_programs()

_HOOK = install_import_hook(["unlearn_jax", "unlearn_kernels"], "beartype.beartype")


def pytest_collection_finish():
    # What is imported by now stays: later searches for garbage need not walk it.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """A file starts without the programs of the file before, and so without theirs."""
    compiling.optimise(request.node.get_closest_marker("optimised") is not None)
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)
