"""Which rows are within, without keeping rows: a multiset of keyed fingerprints.

A sum of rows cannot tell a row that it holds from one it never saw: removing the latter
may pass unnoticed. The ledger can, and names them. What it reveals: to a reader without
the key, how many rows are within and how often each came, nothing else. With the key,
whether a *guessed* row, target and weight are within; a row that cannot be guessed
stays unknown. A deleted row leaves no print: the ledger is then bit for bit the one of
a history without it. Keep the key apart from the ledger.
"""

import hashlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32, Shaped, UInt64

from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.types import Array, Inputs

Prints = UInt64[np.ndarray, "n 2"]
"""128 bits a row; (0, 0) stands for a row that is not there."""

_BYTES = 16
_BLOCK = 512
_NAMED = 5


class Ledger(NamedTuple):
    """Value: the rows that are within, in numpy.

    Attributes:
        fingerprints: One for each different row, in ascending order.
        counts: How often each is within, at least 1.
    """

    fingerprints: Prints
    counts: Int32[np.ndarray, " n"]


def empty_ledger() -> Ledger:
    """Nothing learned yet."""
    return Ledger(np.zeros((0, 2), np.uint64), np.zeros(0, np.int32))


def fingerprint(
    key: bytes,
    inputs: Inputs,
    targets: Shaped[Array | np.ndarray, "..."],
    weights: Float[Array | np.ndarray, "..."] | None = None,
) -> Prints:
    """Keyed BLAKE2b, 128 bits, of each row: shape, input, target and weight.

    Two rows have one print where all their numbers are equal, in whatever precision,
    memory order or array library they come: what is hashed is the narrowest of float32
    and float64, or of uint8 and int64, that holds the row exactly (an integer is not
    the float of the same value). −0.0 equals 0.0, as it does in every sum. The same row
    with another weight is another row: it must be removed with the weight it was
    learned with.

    Args:
        key: Secret, 16 to 64 bytes.
        inputs: First axis runs over rows.
        targets: One for each row.
        weights: None means that each is 1; a row of weight 0 has the print (0, 0),
            whatever it holds, and the ledger ignores it. Shapes count: (n,) targets
            are others than (n, 1).

    Raises:
        ValueError: a key of another length; arrays of different lengths; a negative
            weight; a row, target or weight that is NaN or infinite.

    Cost: 3 µs a row and 1 to 1.5 ns a byte; memory of 512 rows at a time.
    Source: Aumasson et al. 2013, BLAKE2 (RFC 7693), keyed mode. As published.
    """
    if not 16 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise ValueError(f"expected a key of 16 to 64 bytes, got {len(key)}")
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    n = len(inputs)
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if not n == len(targets) == len(weights):
        raise ValueError(
            f"expected one target and one weight for each input, got {n} inputs, "
            f"{len(targets)} targets and {len(weights)} weights"
        )
    if np.any(weights < 0):
        raise ValueError(
            f"expected weights of 0 or more, got {weights.min()}; a row is removed "
            "with the weight it was learned with"
        )
    there = weights != 0
    starts: dict[tuple[Any, ...], Any] = {}
    digests = bytearray(n * _BYTES)
    for first in range(0, n, _BLOCK):
        part = slice(first, first + _BLOCK)
        rows = [_exact(a[part], there[part]) for a in (inputs, targets, weights)]
        for i in np.flatnonzero(there[part]):
            pieces = [narrow[i] if fits[i] else wide[i] for narrow, wide, fits in rows]
            kinds = tuple(piece.dtype for piece in pieces)
            if kinds not in starts:
                head = repr([(p.dtype.str, p.shape) for p in pieces]).encode()
                starts[kinds] = hashlib.blake2b(head, digest_size=_BYTES, key=key)
            row = starts[kinds].copy()
            for piece in pieces:
                row.update(piece)
            place = (first + int(i)) * _BYTES
            digests[place : place + _BYTES] = row.digest()
    return np.frombuffer(digests, "<u8").reshape(n, 2).astype(np.uint64)


def ledger_add(ledger: Ledger, prints: Prints) -> Ledger:
    """The ledger with these rows too; the one given is left as it is.

    Args:
        ledger: What is within.
        prints: From ``fingerprint``, with the same key; a row may come repeatedly.

    Cost: one sort of the prints, m log n comparisons, one copy of the ledger.
    """
    fresh, asked, _, _ = _grouped(prints)
    place, found = _find(ledger.fingerprints, fresh)
    counts = ledger.counts.copy()
    counts[place[found]] += asked[found]
    new = ~found
    return Ledger(
        np.insert(ledger.fingerprints, place[new], fresh[new], axis=0),
        np.insert(counts, place[new], asked[new]),
    )


def ledger_remove(ledger: Ledger, prints: Prints) -> Ledger:
    """The ledger without these rows; the one given is left as it is.

    Args:
        ledger: What is within.
        prints: From ``fingerprint``, with the same key; a row that is within twice may
            come twice.

    Raises:
        RefusedError: a row is not within, or comes more often than it is within; it
            says how many, and the first positions in the request. Nothing is removed.

    Cost: as ``ledger_add``.
    """
    gone, asked, group, turn = _grouped(prints)
    place, found = _find(ledger.fingerprints, gone)
    within = np.zeros(len(gone), np.int32)
    within[found] = ledger.counts[place[found]]
    if np.any(asked > within):
        there = np.any(prints != 0, axis=1)
        positions, have = np.flatnonzero(there), within[group]
        unknown, repeated = positions[have == 0], positions[(turn >= have) & (have > 0)]
        raise RefusedError(
            f"refused, the ledger is unharmed: of {len(positions)} rows to remove, "
            f"{_told(unknown, 'never learned')} and "
            f"{_told(repeated, 'asked for more often than learned')}; ask for each row "
            "with the input, target and weight it was learned with"
        )
    counts = ledger.counts.copy()
    counts[place] -= asked
    left = counts > 0
    return Ledger(ledger.fingerprints[left], counts[left])


def ledger_count(ledger: Ledger, prints: Prints) -> Int[np.ndarray, " n"]:
    """How often each of these rows is within; 0 for a row that is not there.

    Cost: m log n comparisons.
    """
    place, found = _find(ledger.fingerprints, prints)
    counts = np.zeros(len(prints), np.int32)
    counts[found] = ledger.counts[place[found]]
    return counts


def _exact(values: np.ndarray, there: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """Narrow and wide form of rows, and which rows lose nothing in the narrow one."""
    floating = jnp.issubdtype(values.dtype, jnp.floating)
    if floating:
        kinds = ("<f4", "<f8")
    elif values.dtype.kind in "biu" and values.dtype != np.uint64:
        kinds = ("u1", "<i8")
    else:
        raise ValueError(
            f"expected floats, booleans or integers that fit int64, got {values.dtype}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.ascontiguousarray(values).astype(kinds[0], copy=False)
    wide, axes = narrow, tuple(range(1, values.ndim))
    if not np.can_cast(values.dtype, kinds[0]):
        wide = np.ascontiguousarray(values).astype(kinds[1])
    if floating:
        narrow, wide = narrow + np.float32(0), wide + wide.dtype.type(0)
        if not np.all(np.isfinite(wide).all(axes) | ~there):
            raise ValueError(
                "expected finite numbers, got NaN or infinity in a row of weight above "
                "0; clean the rows, or give them weight 0"
            )
    return narrow, wide, (narrow == wide).all(axes)


def _grouped(
    prints: Prints,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Different prints in order, how often each; of each row its place and its turn."""
    there = prints[np.any(prints != 0, axis=1)]
    order = np.lexsort((there[:, 1], there[:, 0]))
    rows = there[order]
    first = np.ones(len(rows), bool)
    first[1:] = np.any(rows[1:] != rows[:-1], axis=1)
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, len(rows))).astype(np.int32)
    group, turn = np.empty(len(rows), np.intp), np.empty(len(rows), np.intp)
    group[order] = np.cumsum(first) - 1
    turn[order] = np.arange(len(rows)) - np.repeat(starts, counts)
    return rows[starts], counts, group, turn


def _find(within: Prints, prints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each print is or belongs, and whether it is there."""
    place = np.searchsorted(within[:, 0], prints[:, 0], "left")
    end = np.searchsorted(within[:, 0], prints[:, 0], "right")
    # Equal first halves are next to impossible; where they occur, walk along them.
    while np.any(later := place < end):
        at = np.flatnonzero(later)
        behind = at[within[place[at], 1] < prints[at, 1]]
        if not behind.size:
            break
        place[behind] += 1
    found = place < end
    found[found] = within[place[found], 1] == prints[found, 1]
    return place, found


def _told(positions: np.ndarray, what: str) -> str:
    if not positions.size:
        return f"0 were {what}"
    shown = ", ".join(map(str, positions[:_NAMED]))
    more = ", …" if positions.size > _NAMED else ""
    return f"{positions.size} were {what} (positions {shown}{more})"
