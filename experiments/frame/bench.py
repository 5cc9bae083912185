"""What a run lends to a study: what is computed once, and found again.

Of several processes that run one study the first makes the pieces and writes them, and
tells the others each piece, so that all of them come by the same way; what they share
is the training of ensembles (``unlearn_jax.ensembles``), member by member.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.frame import progress as shown
from unlearn_jax.ensembles.train import silent
from unlearn_jax.parallel.processes import ALONE
from unlearn_jax.parallel.watch import Links
from unlearn_jax.results.rows import Row, Rows, row_from_dict, row_to_dict
from unlearn_jax.results.run import Run
from unlearn_jax.storage.names import file_name
from unlearn_jax.storage.piece import Piece, pack, unpack
from unlearn_jax.storage.plain import plain_config
from unlearn_jax.storage.source import PACKAGES, source_digest
from unlearn_jax.storage.store import Store
from unlearn_jax.storage.write import write_bytes

_DECIDES = ("source", "jax", "flax", "device", "x64")
"""Fields of a run that its numbers depend on, whatever the study."""
_MADE, _FAILED = b"+", b"-"


class Bench:
    """What a run lends to a study.

    Attributes:
        results: Folder under which trained models are kept, for every run.
        folder: Of this run alone.
        first: Whether this process writes; one of several others does not.

    Args:
        store: Of this run; None in a process that does not write.
        results: As above.
        run: What is run.
        links: To the other processes.
    """

    def __init__(
        self, store: Store | None, results: Path, run: Run, links: Links = ALONE
    ):
        self.results = Path(results)
        self.folder = self.results if store is None else store.folder
        self.first = links.index == 0
        self._store, self._links, self._depth = store, links, 0
        self._known = {name: getattr(run, name) for name in _DECIDES}
        self._known["data"] = run.inputs.get("data", "")
        self._arrays: dict[str, np.ndarray] = {}

    def keep(
        self,
        name: str,
        make: Callable[[], Piece],
        *,
        known_by: Mapping[str, Any] | None = None,
        code: tuple[str, ...] = PACKAGES,
    ) -> Piece:
        """What ``make`` gives, computed once: a run that was killed reads it back.

        Args:
            name: Unique within the run.
            make: Called where no piece of that name was finished.
            known_by: All that it depends on beside data, source, versions and device:
                given this, every run of every study finds it, and not this one alone.
            code: With ``known_by``, packages and modules whose source decides.
        """
        if not self.first:
            return self._followed(name)
        if self._links.count == 1 or self._depth:
            return self._kept(name, make, known_by, code)
        self._depth += 1
        try:
            piece = self._kept(name, make, known_by, code)
        except Exception as error:
            self._links.tell(_FAILED + reason_of(error).encode())
            raise
        finally:
            self._depth -= 1
        self._links.tell(_MADE + name.encode() + b"\n" + pack(piece))
        return piece

    def _followed(self, name: str) -> Piece:
        """What the first process made."""
        kind, told = (word := self._links.hear())[:1], word[1:]
        if kind == _FAILED:
            raise ValueError(f"process 0 failed: {told.decode()}")
        made, _, content = told.partition(b"\n")
        if made.decode() != name:
            raise ValueError(
                f"process 0 made {made.decode()!r} where process {self._links.index} "
                f"asks for {name!r}; start all with the same words, code and data"
            )
        return unpack(content)

    def _kept(
        self,
        name: str,
        make: Callable[[], Piece],
        known_by: Mapping[str, Any] | None,
        code: tuple[str, ...],
    ) -> Piece:
        if known_by is not None:
            place = self.place(name, known_by, code=code)
            return self._shared(place.with_suffix(".npz"), make)
        assert self._store is not None
        if not self._store.has(name):
            made = make()
            self._store.save(name, made.arrays, made.data)
        return self._store.load(name)

    def place(
        self,
        name: str,
        known_by: Mapping[str, Any],
        *,
        code: tuple[str, ...] = PACKAGES,
    ) -> Path:
        """Where every run finds what these words decide, for what keeps its own files.

        Args:
            name: Of the kind of thing.
            known_by: As in :meth:`keep`.
            code: Packages and modules whose source decides, instead of all.
        """
        own = {**self._known, "source": source_digest(code)}
        words = plain_config({**own, "name": name, **known_by})
        text = json.dumps(words, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.results / "kept" / file_name(name.partition("/")[0]) / digest[:24]

    def _shared(self, path: Path, make: Callable[[], Piece]) -> Piece:
        try:
            return unpack(path.read_bytes())
        except FileNotFoundError:
            pass
        except ValueError as error:
            warnings.warn(
                f"{path} is damaged ({error}); it is computed anew", stacklevel=3
            )
        # Packed and unpacked, so that it is the same whether it was there or not.
        content = pack(make())
        write_bytes(path, content)
        return unpack(content)

    def rows(
        self,
        name: str,
        make: Callable[[], Iterable[Row]],
        *,
        failed: Callable[[str], Iterable[Row]] | None = None,
        known_by: Mapping[str, Any] | None = None,
    ) -> Rows:
        """Rows that are measured once; see :meth:`keep`.

        Args:
            name: Unique within the run.
            make: Measures them.
            failed: Rows that stand for those that could not be measured, given the
                reason; they are not kept, so that the next start tries again. Without
                it an error ends the run.
            known_by: As in :meth:`keep`.
        """
        try:
            piece = self.keep(name, lambda: piece_of(make()), known_by=known_by)
            return rows_of(piece)
        except Exception as error:
            # A contender may fail in any way; the study goes on and says so.
            if failed is None:
                raise
            return Rows(failed(reason_of(error)))

    def publish(self, name: str, array: Any) -> None:
        """Hand an array to ``show``; it lies in ``arrays.npz`` beside the rows."""
        self._arrays[name] = np.asarray(array)

    def progress(
        self, title: str, total: float
    ) -> AbstractContextManager[Callable[[float], None]]:
        """Show that ``title`` is under way; the first process does."""
        return (shown.progress if self.first else silent)(title, total)

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """What was published."""
        return self._arrays


def piece_of(rows: Iterable[Row], arrays: Mapping[str, Any] | None = None) -> Piece:
    """Rows, and arrays beside them, as a piece."""
    told = [row_to_dict(row) for row in rows]
    return Piece(dict(arrays or {}), {"rows": told})


def rows_of(piece: Piece) -> Rows:
    """Undo :func:`piece_of`."""
    return Rows(row_from_dict(row) for row in piece.data["rows"])


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:300]}"
