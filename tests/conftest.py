"""Strict settings for every test: x64, no silent broadcasting, shapes checked."""

import collections
import gc

import compiling
import jax
import pytest
import threadpoolctl
import typed
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where an operation was written is looked up for every one that is lowered.
jax.config.update("jax_traceback_in_locations_limit", 0)
# Two workers on two cores: threads of BLAS would spin for one another.
threadpoolctl.threadpool_limits(1, user_api="blas")
compiling.keep_programs()
compiling.lend_contexts()
typed.check_leaves_quickly()

_HOOK = install_import_hook(["unlearn_jax", "unlearn_kernels"], "typed.checked_once")

# Begun first, so that no worker is left alone with one of them at the end.
LONG = (
    "methods/test_contract.py",
    "curvature/test_per_example.py",
    "experiments/test_studies.py",
    "solvers/test_ridge.py",
    "kernels/test_convolution.py",
    "kernels/test_lowering.py",
    "methods/test_removal.py",
    "curvature/test_sequence_curvature.py",
)


def place(path):
    """Where a test file stands in the queue: the long ones first, others as found."""
    long = (i for i, name in enumerate(LONG) if path.endswith(name))
    return next(long, len(LONG))


def pytest_configure(config):
    # Else pytest-xdist puts the files with most tests first.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: place(item.path.as_posix()))


def pytest_collection_finish():
    # What is imported by now stays: later searches for garbage need not walk it, nor
    # look every 700 objects, since tracing makes millions that live.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def pytest_terminal_summary(terminalreporter):
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.split("::")[0]] += report.duration
    if len(seconds) > 20:
        terminalreporter.section("ten longest files")
        for name, spent in seconds.most_common(10):
            terminalreporter.write_line(f"{spent:6.1f} s {name}")


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """A file starts without the programs of the file before it, which take memory."""
    compiling.optimise(request.node.get_closest_marker("optimised") is not None)
    yield
    jax.clear_caches()
    compiling.CONTEXTS.fresh()
    gc.collect()


@pytest.fixture
def key():
    return jax.random.key(0)
