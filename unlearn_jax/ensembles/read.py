"""A trained ensemble on disk: outputs and models of the members that are asked for."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.ensembles.disk import Range, read_outputs, read_variables
from unlearn_jax.types import Variables


class Ensemble(NamedTuple):
    """Description: a trained ensemble on disk; nothing is read before it is asked for.

    Attributes:
        folder: Where it lies.
        count: Members m.
        points: Number of points p that the members were applied to.
        pieces: Its parts.
        like: Variables of one member, as shapes.
        shape: Of the outputs on one point.
        dtype: Name of the outputs' dtype.
        seconds: Spent on training these members, compilation left out.
    """

    folder: Path
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    points: int
    pieces: tuple[Range, ...]
    like: Any
    shape: tuple[int, ...]
    dtype: str
    seconds: float

    def outputs(self, members: Any = slice(None), points: Any = slice(None)) -> Any:
        """(m, p, ...) outputs of the chosen members on the chosen points, in numpy.

        Args:
            members: Slice, indices or mask; only their pieces are opened.
            points: Slice, indices or mask; only these are read.

        Raises:
            PieceError: a file is missing or damaged.
        """
        chosen = np.atleast_1d(np.arange(self.count)[members])
        columns = np.atleast_1d(np.arange(self.points)[points])
        whole = isinstance(points, slice)
        dtype = jnp.dtype(self.dtype)
        found = np.empty((len(chosen), len(columns), *self.shape), dtype)
        for part, where, rows in self._locate(chosen):
            array = read_outputs(self.folder, part, self.dtype)
            found[where] = (
                array[rows, points] if whole else array[np.ix_(rows, columns)]
            )
        return found

    def models(self, members: Any = slice(None)) -> Variables:
        """Variables of the chosen members, their leaves with a first axis.

        Raises:
            PieceError: a file is missing or damaged.
        """
        chosen = np.atleast_1d(np.arange(self.count)[members])
        shapes, structure = jax.tree.flatten(self.like)
        leaves = [np.empty((len(chosen), *s.shape), s.dtype) for s in shapes]
        for part, where, rows in self._locate(chosen):
            for leaf, read in zip(
                leaves, read_variables(self.folder, part), strict=True
            ):
                leaf[where] = read[rows]
        return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves])

    def _locate(self, chosen: np.ndarray) -> Any:
        """Pieces, where their members go, and where they lie in the piece."""
        for part in self.pieces:
            where = np.flatnonzero((chosen >= part.first) & (chosen < part.last))
            if len(where):
                yield part, where, chosen[where] - part.first
