"""Which code computed something: a digest of source files, wherever they come from."""

import ast
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


@functools.lru_cache(maxsize=8)
def needed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Modules of this project that these import, and those import, themselves included.

    What decides a result that these modules compute, where ``TRAINING`` would be more
    than that. Read off the source, wherever in a file an import stands; a package that
    a module merely lies in is not needed by it.

    Args:
        names: Modules, importable.

    Returns:
        In alphabetical order, for :func:`source_digest`.
    """
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in PACKAGES:
            continue
        place = importlib.util.find_spec(name)
        if place is None or place.origin is None:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(Path(place.origin).read_bytes())):
            if isinstance(node, ast.Import):
                waiting += [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += _meant(node.module, [each.name for each in node.names])
    return tuple(sorted(found))


def _meant(module: str, names: list[str]) -> list[str]:
    """The modules of ``from module import names``: those named, or the one itself."""
    if module.partition(".")[0] not in PACKAGES:
        return []
    inner = [f"{module}.{name}" for name in names]
    modules = [name for name in inner if _is_module(name)]
    return modules + ([module] if len(modules) < len(inner) else [])


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


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
