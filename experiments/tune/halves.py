"""Half of the test examples is for whoever tunes, half for the oracle's judgement."""

import numpy as np

from experiments.compare.setting import Case


def in_halves(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every second example of a mask, and the others; both masks of its length."""
    chosen = np.flatnonzero(mask)
    first, second = np.zeros_like(mask), np.zeros_like(mask)
    first[chosen[::2]] = True
    second[chosen[1::2]] = True
    return first, second


def case_in_halves(case: Case) -> tuple[Case, Case]:
    """The same request for the one who tunes, and for the judgement."""
    mine, kept = zip(*map(in_halves, (case.test, case.unseen)), strict=True)
    return (
        case._replace(test=mine[0], unseen=mine[1]),
        case._replace(test=kept[0], unseen=kept[1]),
    )
