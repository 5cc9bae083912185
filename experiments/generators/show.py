"""One table of accuracies, distances and losses, and one picture of what is drawn."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.generators.config import Config
from experiments.generators.kinds import KINDS
from experiments.generators.measure import ORIGINAL, method_names, oracle_names
from experiments.generators.setting import build
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_canvas import grid_figure
from unlearn_jax.results.rows import Rows

_COLUMNS = {
    "UA ↑": ("unlearned", {}),
    "IRA ↑": ("in_domain", {}),
    "rejected ↓": ("rejected", {}),
    "share of all drawn as it →oracle": ("share", {}),
    "P(digit) ↓": ("chance_of_target", {}),
    "entropy": ("entropy", {}),
    "Fréchet to oracles, forgotten →oracle": ("frechet_oracle", {"part": "forgotten"}),
    "Fréchet to oracles, retained →oracle": ("frechet_oracle", {"part": "retained"}),
    "loss, retained →oracle": ("loss", {"part": "retained"}),
    "loss, forgotten →oracle": ("loss", {"part": "forgotten"}),
    "same-seed change": ("same_seed_change", {}),
    "seconds ↓": ("method_seconds", {}),
}
_PAIRED = "frechet_oracle"
"""Of an oracle it is a distance of two, which no two pairs have independently."""


def show(config: Config, results: Results) -> list[Finding]:
    """The table, the picture, and what the judge may be trusted with."""
    rows = results.rows
    setting = build(config)
    names = method_names(setting)
    lines = [
        (ORIGINAL, [ORIGINAL]),
        *([("oracle vs oracle", oracle_names(config.oracles))] * bool(config.oracles)),
        *((name, [name]) for name in names),
    ]
    cells = [
        [
            title,
            *(_cell(rows, metric, who, **at) for metric, at in _COLUMNS.values()),
            _went(rows, who),
        ]
        for title, who in lines
    ]
    right, silent = (
        _one(rows, metric) for metric in ("judge_accuracy", "judge_rejects")
    )
    words = [
        f"The judge is right on {right:.1%} of the held-out images that it judges "
        f"({silent:.1%} are rejected)."
    ]
    notes = (
        f"UA: share of the images asked to be {config.target} that are not seen as it; "
        "IRA: share of all others that are seen as what was asked. A rejected image is "
        "of no digit. Where nothing is asked, what the original draws from a seed is. "
        "P(digit), entropy: of the judge's classifier on the forgotten "
        "digit's images, whether or not it would be silent.",
        f"Loss: mean {KINDS[config.kind](setting).unit} of held-out images.",
        f"{config.samples} images of each digit; seeds are the same for all rows. "
        "Fréchet: of the judge's features, to each oracle's images (of an oracle: to "
        "the others', the floor).",
    )
    caption = (
        f"The digit {config.target} is forgotten by a generator of the kind "
        f"{config.kind}. {about(results.run)}"
    )
    header = ("method", *_COLUMNS, "target drawn as")
    made = table(f"generators_{config.kind}", caption, header, cells, notes)
    return [Finding([made], [_picture(config, results, names)], words=words)]


def _one(rows: Rows, metric: str, **at: str) -> float:
    found = [row.value for row in rows.where(metric, **at) if row.value is not None]
    return float(np.mean(found)) if found else math.nan


def _cell(
    rows: Rows, metric: str, names: Sequence[str], **at: str
) -> str | float | None:
    """A mean, with its error where it is one of independent generators."""
    values = np.array([_one(rows, metric, method=name, **at) for name in names])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if len(values) == 1 or metric == _PAIRED:
        return float(values.mean())
    error = values.std(ddof=1) / math.sqrt(len(values))
    return mean_and_error(float(values.mean()), float(error))


def _went(rows: Rows, names: Sequence[str]) -> str:
    """As what the target's images are seen most, and how often."""
    titles = [*map(str, range(10)), "rejected"]
    shares = np.zeros(len(titles))
    for row in rows.where("went"):
        if row.value is not None and row.at["method"] in names:
            shares[int(row.at["to"])] += row.value / len(names)
    first = int(np.argmax(shares))
    return f"{titles[first]} {100 * shares[first]:.0f} %"


def _picture(config: Config, results: Results, methods: Sequence[str]) -> Drawing:
    names = [ORIGINAL, *oracle_names(config.oracles), *methods]
    grids = {name: results.arrays[f"grid/{name}"] for name in names}
    asked = [str(label) for label in results.arrays["shown"]]
    caption = "What each generator draws; one column has one digit and one seed."
    numbers = [
        {"method": name, "digit": digit, "mean": float(image.mean())}
        for name, grid in grids.items()
        for digit, image in zip(asked, grid, strict=True)
    ]
    figure = grid_figure(grids, asked, caption)
    return Drawing(f"generators_{config.kind}", figure, numbers, caption)
