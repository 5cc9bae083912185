"""One table of accuracies, distances and losses, and one picture of what is drawn."""

from collections.abc import Sequence

import numpy as np

from experiments.canvas.cells import mean_cell, mean_of
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from experiments.generators.config import Config
from experiments.generators.kinds import KINDS
from experiments.generators.measure import ORIGINAL, method_names, oracle_names
from experiments.generators.setting import build
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
            *(mean_cell(rows, metric, who, **at) for metric, at in _COLUMNS.values()),
            _went(rows, who),
        ]
        for title, who in lines
    ]
    right, silent = (
        mean_of(rows, metric) for metric in ("judge_accuracy", "judge_rejects")
    )
    words = [
        f"The judge is right on {right:.1%} of the held-out images that it judges "
        f"({silent:.1%} are rejected).",
        *_broken(rows),
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


def _broken(rows: Rows) -> list[str]:
    """A sentence for each generator whose images are not all of numbers."""
    return [
        f"{row.at['method']}: {row.value:.1%} of its images are NaN or infinite, so "
        "that nothing is said of what it draws."
        for row in rows.where("broken")
        if row.value
    ]


def _went(rows: Rows, names: Sequence[str]) -> str | None:
    """As what the target's images are seen most, and how often; None: unseen."""
    titles = [*map(str, range(10)), "rejected"]
    shares = np.zeros(len(titles))
    for row in rows.where("went"):
        if row.value is not None and row.at["method"] in names:
            shares[int(row.at["to"])] += row.value / len(names)
    if not shares.any():
        return None
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
