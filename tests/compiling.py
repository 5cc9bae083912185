"""Programs of the tests are compiled quickly, and kept from run to run.

A test spends its time compiling, not computing. So XLA optimises little, unless a file
says ``pytestmark = pytest.mark.optimised``, since it measures memory or rounding; and
every program is kept in ``.jax_cache``, where later files, which start without the
programs of the ones before, find the small ones again, and so do the processes that a
test starts. JAX names an entry by program, options and versions; the folder is named by
the processor, since what is compiled for one may stop another. Delete the folder
whenever you like.
"""

import hashlib
import os
import platform
import threading
from pathlib import Path

import jax
from jax._src.interpreters import mlir

ROOT = Path(__file__).resolve().parents[1]
CHEAP = (
    ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
    if jax.__version_info__[:2] == (0, 10)
    else ()
)
"""What makes XLA compile a small program in a quarter of the time: code for fused
operations straight to LLVM, one module a program. JAX 0.12 no longer has the choice,
and a flag that XLA does not know stops the process."""
FORGIVING = ("-W", "ignore:Error reading persistent", "-W", "ignore:Error writing pers")
"""For a child whose warnings are errors: a spoilt entry is compiled again."""


def processor() -> str:
    """A short name of this machine's processor and its instructions."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    words = ("vendor_id", "cpu family", "model", "flags", "CPU part", "Features")
    kinds = sorted({line for line in lines if line.startswith(words)})
    kinds = kinds or [platform.platform(), platform.processor()]
    return hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:12]


def flags(others: str) -> str:
    """Flags of XLA for a process of the tests; the later of two wins."""
    return " ".join((*CHEAP, *others.split()))


def keep_programs() -> None:
    """Set the cache here and for child processes, unless the user has set one.

    To be called before JAX looks for devices, since XLA reads its flags once."""
    os.environ["XLA_FLAGS"] = flags(os.environ.get("XLA_FLAGS", ""))
    chosen = {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache" / processor()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)
    folder, seconds = (os.environ[name] for name in chosen)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(seconds))


class Contexts(threading.local):
    """A context of MLIR for each thread, in place of one for each program.

    To load JAX's dialects into a new one takes two thirds of the time in which a small
    program is lowered: of three files of programs, a tenth of all. ``fresh`` lets go
    of all that this thread's has gathered."""

    make = staticmethod(mlir.make_ir_context)
    kept = None

    def lend(self):
        self.kept = self.kept or self.make()
        return self.kept

    def fresh(self):
        self.kept = None


CONTEXTS = Contexts()


def lend_contexts() -> None:
    """Put ``CONTEXTS`` where JAX makes a context for each program it lowers."""
    assert callable(mlir.make_ir_context)
    mlir.make_ir_context = CONTEXTS.lend


def optimise(much: bool) -> None:
    """Whether XLA optimises the programs compiled from here on, children's too."""
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not much))
    jax.config.update("jax_disable_most_optimizations", not much)
