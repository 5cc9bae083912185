"""How a wide table is broken: lines of a cell, widths of columns, groups that fit."""

from collections.abc import Sequence


def stacked(text: str) -> list[str]:
    """The lines of a cell: intervals and further words below what they belong to."""
    if text.startswith("failed:"):
        return [text]
    if " [" in text:
        return text.replace(" [", "\n[").split("\n")
    return text.replace(", ", ",\n").split("\n")


def column_width(title: str, lines: Sequence[str], *, aim: int, most: int) -> int:
    """Characters that a column needs so that no word of it is cut.

    Args:
        title: Wraps at its blanks.
        lines: Of all cells; those longer than ``aim`` wrap at their blanks too.
        aim: Where lines begin to wrap.
        most: Words longer than this are folded: no number is.
    """
    longest = max(map(len, lines), default=0)
    words = [word for line in (title, *lines) for word in line.split()]
    return min(max(min(longest, aim), *map(len, words), 1), most)


def groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns in their order, in groups that fit ``room`` beside column 0 each."""
    found: list[list[int]] = [[]]
    left = room - widths[0]
    for column in range(1, len(widths)):
        if found[-1] and widths[column] > left:
            found.append([])
            left = room - widths[0]
        found[-1].append(column)
        left -= widths[column]
    return [[0, *group] for group in found]


def first_group(widths: Sequence[int], room: int, order: Sequence[int]) -> list[int]:
    """Column 0 and what fits beside it, the first of ``order`` before the others."""
    taken, left = [0], room - widths[0]
    for column in dict.fromkeys([*order, *range(1, len(widths))]):
        if widths[column] <= left or len(taken) == 1:
            taken.append(column)
            left -= widths[column]
    return sorted(taken)
