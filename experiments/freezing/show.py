"""The guard among all masks, and the front of what is remembered."""

import numpy as np
from scipy.stats import spearmanr

from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from experiments.freezing.config import Config
from experiments.freezing.setting import RULES
from unlearn_jax.methods.erasing.layer_masks import every_mask
from unlearn_jax.methods.erasing.memory_control import (
    front,
    hypervolume,
    masked_names,
    ranked,
)
from unlearn_jax.results.rows import Rows

_NAMES = tuple(name for name, _ in RULES)
_MASKS = every_mask(len(_NAMES))
_CODES = ["".join("01"[int(own)] for own in mask) for mask in _MASKS]


def show(config: Config, results: Results) -> list[Finding]:
    """Two tables."""
    return [_guard(config, results), _memory(config, results)]


def _guard(config: Config, results: Results) -> Finding:
    rows = results.rows
    target, innocent = (
        _values(rows, f"{name}_loss") for name in ("target", "innocent")
    )
    gain = target - innocent
    (chosen,) = (row.at["mask"] for row in rows.where("chosen"))
    mine = _CODES.index(str(chosen))
    peers = np.flatnonzero(_MASKS.sum(1) == config.frozen)
    place = ranked(gain[peers], int(np.flatnonzero(peers == mine)[0]))
    best, worst = peers[np.argmax(gain[peers])], peers[np.argmin(gain[peers])]
    lines = [
        [title, masked_names(_NAMES, _MASKS[i]), target[i], innocent[i], gain[i]]
        for title, i in (
            ("nothing", 0),
            ("learnt by FreezeAsGuard", mine),
            (f"best of {len(peers)} of {config.frozen}", best),
            (f"worst of {len(peers)} of {config.frozen}", worst),
            ("best of all", int(np.argmax(gain))),
            *(
                (f"{name} alone", int(np.flatnonzero(_alone(i))[0]))
                for i, name in enumerate(_NAMES)
            ),
            ("everything", len(_CODES) - 1),
        )
    ]
    words = [
        f"The mask that is learnt has place {place} of the {len(peers)} that freeze "
        f"{config.frozen} groups."
    ]
    header = ("frozen", "groups", "loss, target ↑", "loss, innocent ↓", "difference ↑")
    notes = (
        "Losses: squared error of a pixel's noise on unseen images, after users tuned "
        f"what is not frozen for {config.user_steps} steps of Adam at "
        f"{config.user_rate:g} on both.",
    )
    caption = (
        f"Freezing so that a {config.target} is not learnt and an inverted "
        f"{config.innocent} is. {about(results.run)}"
    )
    return Finding([table("guard", caption, header, lines, notes)], words=words)


def _memory(config: Config, results: Results) -> Finding:
    rows = results.rows
    copies, recalled, cost = (
        _values(rows, name) for name in ("copies", "recalled", "unseen_loss")
    )
    points = np.stack([recalled, cost], 1)
    best = front(points)
    worst = points.max(0)
    whole = hypervolume(points, worst)
    shares, areas = [], []
    for number in sorted({int(row.at["search"]) for row in rows.where("asked")}):
        asked = [
            _CODES.index(str(row.at["mask"]))
            for row in rows.where("asked", search=number)
        ]
        shares.append(float(best[asked].sum() / best.sum()))
        areas.append(hypervolume(points[asked], worst) / max(whole, 1e-12))
    follows = float(np.asarray(spearmanr(recalled, copies))[0])
    words = [
        f"Rank correlation of the proxy with copies over {len(_CODES)} masks: "
        f"{follows:.2f}. A search of {config.budget} finds {np.mean(shares):.0%} of "
        f"the front and {np.mean(areas):.0%} of its area, the mean of {len(shares)}."
    ]
    order = [0, *np.flatnonzero(best)[np.argsort(recalled[best])], len(_CODES) - 1]
    lines = [
        [
            masked_names(_NAMES, _MASKS[i]),
            recalled[i],
            cost[i],
            copies[i],
            "yes" if best[i] else "no",
        ]
        for i in dict.fromkeys(int(i) for i in order)
    ]
    header = ("tuned", "proxy ↓", "loss, unseen ↓", "copies ↓", "in the front")
    notes = (
        f"{config.repeated} images are tuned on for {config.memory_steps} steps. "
        "Proxy: the largest length of a caption's direction at their noised images. "
        f"Copies: share of {config.samples} drawn images that are twice as near to one "
        "of them as to any other. Shown: nothing, the front of proxy and loss, "
        "everything.",
    )
    caption = f"What is remembered of a few repeated images. {about(results.run)}"
    return Finding([table("memory", caption, header, lines, notes)], words=words)


def _alone(number: int) -> np.ndarray:
    return (_MASKS.sum(1) == 1) & _MASKS[:, number]


def _values(rows: Rows, metric: str) -> np.ndarray:
    found = {str(row.at["mask"]): row.value for row in rows.where(metric)}
    return np.array([found[code] for code in _CODES], np.float64)
