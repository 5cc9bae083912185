"""What a request may be, before anything of it is written."""

import contextlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

_LONGEST_NAME = 1000


def check_text(what: str, text: Any) -> None:
    """Refuse what is no name: the log has to tell it, people have to read it.

    Raises:
        ValueError: no text, empty, not printable or too long.
    """
    if not isinstance(text, str) or not text.isprintable() or not text.strip():
        raise ValueError(f"{what} is {text!r:.80}, expected printable text")
    if len(text) > _LONGEST_NAME:
        raise ValueError(
            f"{what} has {len(text)} characters, expected at most {_LONGEST_NAME}"
        )


def count_of(rows: Any) -> int:
    """A number of rows.

    Raises:
        ValueError: it is none.
    """
    with contextlib.suppress(TypeError):
        if 0 <= operator.index(rows) < 2**63:
            return operator.index(rows)
    raise ValueError(f"rows is {rows!r:.80}, expected a number of rows")


def own_arrays(arrays: Any) -> dict[str, np.ndarray]:
    """Copies in C order of what can be kept.

    Raises:
        ValueError: names the first that cannot.
    """
    if not isinstance(arrays, Mapping):
        raise ValueError(f"arrays is {type(arrays).__name__}, expected arrays by name")
    own = {}
    for name, given in arrays.items():
        check_text("the name of an array", name)
        try:
            array = np.array(given, order="C")
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{name!r} is no array ({error})") from error
        if array.dtype.hasobject or not array.dtype.itemsize:
            raise ValueError(f"{name!r} holds objects, expected numbers or text")
        if np.ma.isMaskedArray(given):
            raise ValueError(f"{name!r} is masked: leave the masked rows out")
        own[name] = array
    return own
