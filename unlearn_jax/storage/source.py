"""Which code computed something: a digest of source files, wherever they come from."""

import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = ("unlearn_jax", "unlearn_kernels", "experiments")
"""All code of this project."""

TRAINING = (
    "unlearn_jax.train",
    "unlearn_jax.models",
    "unlearn_jax.data",
    "unlearn_jax.loop",
    "unlearn_jax.tree",
    "unlearn_jax.keys",
    "unlearn_kernels",
)
"""What decides which weights a training ends with; an edited method does not."""


@functools.lru_cache(maxsize=8)
def source_digest(
    names: tuple[str, ...] = PACKAGES, files: tuple[Path, ...] = ()
) -> str:
    """SHA-256 over the source of packages or modules and of single files, hexadecimal.

    Args:
        names: Importable; those that are not installed count by their absence.
        files: Of a user, beside them; by content, not by place.

    Cost: a few milliseconds for a megabyte of source; once per process.
    """
    digest = hashlib.sha256()
    for name, path in _named(names):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for path in files:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()


def _named(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Every source file with its place in the package, in a fixed order."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        if found.submodule_search_locations is None:
            yield name, origin
            continue
        for path in sorted(origin.parent.rglob("*.py")):
            yield f"{name}/{path.relative_to(origin.parent).as_posix()}", path
