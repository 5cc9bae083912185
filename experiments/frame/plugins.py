"""What a user brings: a name in a table, ``file.py:name``, ``module:name``, a plug-in.

Entry points of installed packages are looked for under ``unlearn_jax.methods``,
``unlearn_jax.models``, ``unlearn_jax.data``, ``unlearn_jax.metrics``,
``unlearn_jax.attributions``.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from unlearn_jax.storage.checksum import file_digest

Value = TypeVar("Value")


def found(name: str, table: Mapping[str, Value], kind: str) -> Value | Any:
    """What a name stands for.

    Args:
        name: In the table, or ``my_file.py:factory``, ``my.module:factory``, or the
            name of an entry point.
        table: Those that come with the package.
        kind: "methods", "models", "data", "metrics" or "attributions": the group of
            entry points, and the word in the error.

    Raises:
        ValueError: there is no such thing; says what there is, and how to bring one.
    """
    if name in table:
        return table[name]
    where, colon, attribute = name.rpartition(":")
    if colon and where and attribute.isidentifier():
        module = _module(where)
        if not hasattr(module, attribute):
            raise ValueError(f"{where} defines no {attribute!r}")
        return getattr(module, attribute)
    points = importlib.metadata.entry_points(group=f"unlearn_jax.{kind}", name=name)
    for point in points:
        try:
            return point.load()
        except (Exception, SystemExit) as error:
            raise _unfit(f"the plug-in {name!r} ({point.value})", error) from error
    raise ValueError(
        f"there is no {kind.removesuffix('s')} {name!r}; choose from "
        f"{', '.join(table)}, or bring one: my_file.py:name"
    )


def entry(
    name: str,
    table: Mapping[str, Value],
    kind: str,
    what: str,
    wrap: Callable[[Any], Value],
) -> Value:
    """The entry of a name; what is brought along may be a mere function.

    Args:
        name: As in :func:`found`.
        table: Entries that come with the package; none is empty.
        kind: As in :func:`found`.
        what: The word for a mere function, in the error.
        wrap: Makes an entry of such a function.

    Raises:
        ValueError: there is no such thing, or it can be no entry.
    """
    brought: Any = found(name, table, kind)
    if isinstance(brought, type(next(iter(table.values())))):
        return brought
    if not callable(brought):
        raise ValueError(f"{name} is no {what}: it cannot be called")
    return wrap(brought)


class Factories(Mapping[str, Callable[..., Any]]):
    """Factories by name, of those that are brought along too.

    Args:
        entry_of: From a name to its entry; a ValueError where there is none.
        table: Those that come with the package.
    """

    def __init__(self, entry_of: Callable[[str], Any], table: Mapping[str, Any]):
        self._entry_of, self._table = entry_of, table

    def __getitem__(self, name: str) -> Callable[..., Any]:
        try:
            return self._entry_of(name).factory
        except ValueError as error:
            raise KeyError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def user_file(name: str) -> Path | None:
    """The file of ``my_file.py:name`` or ``module:name``, whose source counts."""
    where, colon, _ = name.rpartition(":")
    if not colon or not where:
        return None
    if where.endswith(".py"):
        return Path(where)
    spec = importlib.util.find_spec(where)
    return None if spec is None or spec.origin is None else Path(spec.origin)


def brought_digest(name: str) -> str:
    """Of the source behind a name; empty for what comes with the package."""
    file = user_file(name)
    return "" if file is None else file_digest(file)


def short_name(name: str) -> str:
    """How a table calls it: without the path to the file."""
    where, colon, attribute = name.rpartition(":")
    return attribute if colon and where else name


def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(f"there is no module {where!r} ({error})") from None
        except (Exception, SystemExit) as error:
            raise _unfit(f"module {where!r}", error) from error
    path = Path(where).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {where}")
    return _loaded(path, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


@functools.lru_cache(maxsize=32)
def _loaded(path: Path, digest: str) -> ModuleType:
    """A file as a module; once for each content."""
    name = f"_brought_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported; it must be Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _unfit(str(path), error) from error
    return module


def _unfit(what: str, error: BaseException) -> ValueError:
    """For what was brought and fails as it is imported; a script may even exit."""
    return ValueError(f"{what} cannot be imported: {type(error).__name__}: {error}")
