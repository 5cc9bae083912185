"""Computed pieces named by what they depend on: found again, and swept by name."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from unlearn_jax.storage.store import Store
from unlearn_jax.storage.write import sync_folder

Arrays = Mapping[str, np.ndarray]


class Contents:
    """Arrays by the name of what decides them, so that equal work is done once.

    The name is a digest of everything that the arrays are computed from: whoever asks
    for a piece that is there gets it, else it is computed and kept. Nothing has to be
    told when what it depends on changes, since that has another name; :meth:`sweep`
    then deletes what nothing names any more.

    Args:
        store: Where the pieces lie, whole or not at all; None keeps them in memory.
    """

    def __init__(self, store: Store | None = None):
        self._store = store
        self._memory: dict[str, Arrays] = {}

    def has(self, name: str) -> bool:
        """Whether the piece is there."""
        return name in self._memory if self._store is None else self._store.has(name)

    def load(self, name: str) -> Arrays:
        """The piece of that name.

        Raises:
            KeyError: it is not there.
            PieceError: its file is damaged; once that is deleted it is computed anew.
        """
        return self._memory[name] if self._store is None else self._store.load(name)[0]

    def keep(self, name: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Have a piece of that name; ``make`` is called where it is missing.

        Raises:
            StorageError: the disk cannot take it.
        """
        if self.has(name):
            return
        arrays = {key: np.asarray(value) for key, value in make().items()}
        if self._store is None:
            self._memory[name] = arrays
        else:
            self._store.save(name, arrays)

    def sweep(self, names: Collection[str]) -> int:
        """Delete every piece but these; how many went. On disk when this returns."""
        if self._store is None:
            gone = [name for name in self._memory if name not in names]
            for name in gone:
                del self._memory[name]
            return len(gone)
        folder = self._store.path("any").parent
        kept, count = {self._store.path(name).name for name in names}, 0
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(folder.iterdir()):
                if path.name not in kept:
                    path.unlink()
                    count += 1
        if count:
            sync_folder(folder)
        return count
