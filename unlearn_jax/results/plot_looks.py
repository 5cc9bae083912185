"""How everything that figures draw looks: one table of colours and markers."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
BLACK, GREY, FLOOR_GREY = "#000000", "#767676", "#DDDDDD"
BROWN, TEAL = "#8C564B", "#17A589"
"""Okabe and Ito's palette, and two more for long legends."""

SPARE = (SKY, BLUE, PURPLE, GREEN, VERMILION, ORANGE)
"""For names that are in no table."""
TURNS = (BLUE, PURPLE, SKY, BROWN, TEAL)
"""For kinds that a study counts off."""
MARKERS = "DvP<X>d^pso"
"""For variants that share a colour."""


def _of(colour: str, marker: str = "", **style: Any) -> Mapping[str, Any]:
    own = {"color": colour, **({"marker": marker} if marker else {}), **style}
    return MappingProxyType(own)


LOOKS: Mapping[str, Mapping[str, Any]] = {
    # references
    "original": _of(GREY, linestyle=(0, (4, 2))),
    "identity": _of(GREY),
    "oracle": _of(BLACK),
    "retrain": _of(BLACK, "o"),
    "oracle vs oracle": _of(BLACK, linestyle=":"),
    # methods that descend or ascend
    "finetune": _of(ORANGE, "o"),
    "finetune_last": _of(ORANGE),
    "retrain_last": _of(ORANGE),
    "gradient_ascent": _of(ORANGE, "^"),
    "random_labels": _of(ORANGE),
    "neggrad_plus": _of(ORANGE),
    "l1_sparse": _of(ORANGE),
    "prune_finetune": _of(ORANGE),
    "boundary_shrink": _of(ORANGE),
    "boundary_expanding": _of(ORANGE),
    "unsir": _of(ORANGE),
    "prioritised_finetune": _of(ORANGE),
    "ewc": _of(ORANGE),
    "l2_to_init": _of(ORANGE),
    "fisher_merging": _of(ORANGE),
    # teacher and student, masks
    "scrub": _of(VERMILION, "s"),
    "bad_teacher": _of(VERMILION),
    "salun": _of(VERMILION),
    # diagonal curvature
    "ssd": _of(GREEN, "D"),
    "ssd_batch": _of(GREEN),
    "assd": _of(GREEN),
    "lfssd": _of(GREEN),
    "fisher_forgetting": _of(GREEN),
    "potion": _of(PURPLE, "P"),
    # full curvature, and what training left
    "influence_removal": _of(BLUE, "x"),
    "newton_removal": _of(BLUE),
    "influence_unlearning": _of(BLUE),
    "source_removal": _of(BLUE),
    "natural_ascent": _of(BLUE),
    "unrolled_removal": _of(BLUE),
    # outputs of the oracle
    "oracle_matching": _of(PURPLE),
    "oracle matching": _of(BLACK, "*"),
    "datamodel_matching": _of(PURPLE),
    "dmm": _of(PURPLE),
    # heads in closed form, and what they are held against
    "analytic": _of(SKY),
    "acu": _of(SKY),
    "ACU": _of(BLUE, linewidth=2.2, alpha=0.8),
    "ACU, inverse": _of(VERMILION, linestyle=(0, (4, 2))),
    "ridge from scratch": _of(BLACK),
    "inverse recomputed": _of(PURPLE, linestyle=(0, (1, 1.5))),
    "SGD retrain": _of(GREY),
    "SGD fine-tune": _of(ORANGE),
    "SGD, SSD": _of(GREEN),
    "SGD, new rows alone": _of(GREY, linestyle=(0, (1, 1.5))),
    "SGD, EWC": _of(BROWN),
    "SGD, Fisher merging": _of(TEAL, linestyle=(0, (4, 2))),
    "SGD, refresh": _of(SKY),
    # forms of ridge regression
    "sums": _of(BLUE, "o", fillstyle="none", markersize=8),
    "sums and inverse": _of(GREEN, "D", markersize=4),
    "inverse": _of(VERMILION, "s", markersize=4),
    "fresh Cholesky": _of(BLACK, "^", markersize=4),
    "fresh QR": _of(ORANGE, "v", markersize=4),
    # rows that an attack looks for
    "within": _of(BLUE),
    "to be deleted": _of(ORANGE),
    "deleted": _of(VERMILION),
    # attributions at the end of training
    "influence": _of(BLUE, "o"),
    "ekfac_influence": _of(BLUE, "s"),
    "trak": _of(VERMILION, "o"),
    "logra": _of(VERMILION, "s"),
    "representer": _of(VERMILION, "^"),
    # attributions through training
    "tracin": _of(GREEN, "o"),
    "source": _of(GREEN, "s"),
    "metagradient": _of(GREEN, "*"),
    # attributions from models of subsets
    "datamodel": _of(PURPLE, "o"),
    "sparse_datamodel": _of(PURPLE, "s"),
    "empirical_leave_one_out": _of(PURPLE, "^"),
    "random": _of(GREY, "x"),
    # approximations of curvature, by how their names begin
    "CG": _of(BLUE),
    "MINRES": _of(BLUE),
    "Neumann": _of(BLUE),
    "K-FAC": _of(ORANGE),
    "EK-FAC": _of(ORANGE),
    "low rank": _of(PURPLE),
    "WoodFisher": _of(PURPLE),
    "diagonal": _of(GREEN),
    "empirical": _of(GREEN),
    "damping": _of(GREY),
    "Hutchinson": _of(VERMILION),
    "Bekas": _of(VERMILION),
    "Hadamard": _of(VERMILION),
    "sampled": _of(VERMILION),
}
"""One colour per family; names or markers tell its members apart."""


def look(name: str, **otherwise: Any) -> dict[str, Any]:
    """What Matplotlib draws a name with: colour, marker, line.

    A name that is not in ``LOOKS`` but begins with one that is, "ssd alpha=3", has the
    colour of that one; others have a fixed one of ``SPARE``.

    Args:
        name: Of a method, a head, an attribution, ...
        otherwise: For what the table does not say.
    """
    if name in LOOKS:
        return {**otherwise, **LOOKS[name]}
    starts = [
        start
        for start in LOOKS
        if name.startswith(start) and not re.match(r"\w", name[len(start) :])
    ]
    if starts:
        return {**otherwise, "color": LOOKS[max(starts, key=len)]["color"]}
    return {**otherwise, "color": SPARE[sum(map(ord, name)) % len(SPARE)]}


def colour(name: str) -> str:
    """The colour of a name in every figure; see :func:`look`."""
    return look(name)["color"]
