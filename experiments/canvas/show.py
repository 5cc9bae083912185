"""One table of accuracies, attacks and distances, and one picture of what is drawn."""

from collections.abc import Sequence

import numpy as np

from experiments.canvas.cells import mean_cell, mean_of
from experiments.canvas.config import Config
from experiments.canvas.generators import ORIGINAL, oracle_names
from experiments.canvas.request import GRAMMAR, Wanted
from experiments.canvas.setting import wanted_of
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.plot_canvas import grid_figure
from unlearn_jax.results.rows import Rows
from unlearn_jax.results.table import Table
from unlearn_jax.storage.write import readable_bytes


def show(config: Config, results: Results) -> list[Finding]:
    """The table, the picture, and in words what the judge may be trusted with."""
    rows = results.rows
    judge = [
        f"{kind} {mean_of(rows, 'judge_accuracy', kind=kind):.1%} of the held-out "
        f"images that it judges ({mean_of(rows, 'judge_rejects', kind=kind):.1%} are "
        "rejected)"
        for kind in ("class", "style")
    ]
    drawn = 1 - mean_of(rows, "unlearned", method=ORIGINAL, prompts="plain")
    kept = mean_of(rows, "in_domain", method=ORIGINAL, prompts="plain")
    words = [
        f"The judges are right on {' and on '.join(judge)}.",
        f"The original draws what plain prompts ask for: {drawn:.1%} of the target's, "
        f"{kept:.1%} of all other classes' images.",
    ]
    return [
        Finding([_table(config, results)], [_picture(config, results)], words=words)
    ]


def _names(config: Config) -> list[tuple[str, list[str]]]:
    """Title of a row, and the methods that it is the mean of."""
    oracles = oracle_names(config.oracles)
    return [
        (ORIGINAL, [ORIGINAL]),
        *([("oracle vs oracle", oracles)] if oracles else []),
        *((name, [name]) for name in config.methods),
    ]


def _went(rows: Rows, names: Sequence[str], wanted: Wanted) -> str:
    """As what the target's plain prompts are seen most, and how often."""
    titles = [*wanted.titles, "rejected"]
    shares = np.zeros(len(titles))
    for row in rows.where("went", prompts="plain"):
        if row.value is not None and row.at["method"] in names:
            shares[int(row.at["to"])] += row.value / len(names)
    first = int(np.argmax(shares))
    return f"{titles[first]} {100 * shares[first]:.0f} %"


def _table(config: Config, results: Results) -> Table:
    rows, wanted = results.rows, wanted_of(config, GRAMMAR)
    plain, told = {"prompts": "plain"}, {"prompts": "paraphrase"}
    columns: dict[str, tuple[str, dict[str, str]]] = {
        "UA ↑": ("unlearned", plain),
        "IRA ↑": ("in_domain", plain),
        "CRA ↑": ("cross_domain", plain),
        "rejected ↓": ("rejected", plain),
        "UA, paraphrases ↑": ("unlearned", told),
        "IRA, paraphrases ↑": ("in_domain", told),
        "attack ↓": ("attack", {}),
        "Fréchet to oracles, forgotten →oracle": (
            "frechet_oracle",
            {"part": "forgotten"},
        ),
        "Fréchet to oracles, retained →oracle": (
            "frechet_oracle",
            {"part": "retained"},
        ),
        "Fréchet to held-out →oracle": ("frechet_held_out", {}),
        "same-seed change": ("same_seed_change", {}),
        "drift without a prompt": ("silent_drift", {}),
        "seconds ↓": ("edit_seconds", {}),
    }
    sizes = ("edit_peak_bytes", "moved_bytes")
    lines = [
        [
            title,
            *(mean_cell(rows, metric, names, **at) for metric, at in columns.values()),
            *(_size(rows, metric, names) for metric in sizes),
            _went(rows, names, wanted),
        ]
        for title, names in _names(config)
    ]
    anchors, _ = wanted.replaced([config.target], [config.style])
    place = f"class {GRAMMAR.classes[anchors[0]][0]}"
    if wanted.kind == "style":
        place = f"style {GRAMMAR.styles[config.style_anchor][0]}"
    kinds = {
        "class": ("class", "style"),
        "style": ("style", "class"),
        "pair": ("class and the style", "style"),
    }[wanted.kind]
    notes = (
        f"UA: share of the prompts for {wanted.name} whose image is not of it; IRA and "
        f"CRA: share of all other prompts whose image is of the {kinds[0]}, of the "
        f"{kinds[1]}, that they ask for. A rejected image is of none.",
        f"{config.samples} images of each class in each style, plain prompts and "
        f"paraphrases, {config.steps} steps, guidance {config.guidance:g}; the seeds "
        "are the same for all rows.",
        f"Attack: the embedding that brings the outputs of the maps back, in closed "
        f"form, λ = {config.attack_l2:g}, and how often {wanted.name} is drawn from "
        "it; of a model that is trained, its own embeddings. It passes by a guard, "
        "which reads prompts.",
        "Fréchet: of the judge's features, to each oracle's images for these prompts "
        "(of an oracle: to the others', the floor).",
        f"Same-seed change: mean absolute difference of pixels (from -1 to 1) of other "
        f"prompts' images from the original's; edits put the {place} in the place of "
        f"{wanted.name}.",
        "Drift without a prompt: squared change of the noise told under the null "
        "prompt at held-out images, as a share of its square.",
        "Peak memory: of the compiled program that forgets, arguments included. Moved: "
        "bytes of the arrays that differ from the original's, which a copy must store. "
        "No method asks the judge while it forgets: none stops by it.",
    )
    caption = (
        f"{wanted.name.capitalize()} is erased from a generator of captioned digits. "
        f"{about(results.run)}"
    )
    header = ("method", *columns, "peak memory ↓", "moved ↓", "target drawn as")
    return table("canvas", caption, header, lines, notes)


def _size(rows: Rows, metric: str, names: Sequence[str]) -> str | None:
    size = np.mean([mean_of(rows, metric, method=name) for name in names])
    return None if np.isnan(size) else readable_bytes(int(size))


def _picture(config: Config, results: Results) -> Drawing:
    first = [ORIGINAL, *oracle_names(config.oracles)]
    names = [*first, *config.methods]
    grids = {name: results.arrays[f"grid/{name}"] for name in names}
    prompts = [
        f"{GRAMMAR.styles[style][0]} {GRAMMAR.classes[label][0]}"
        for label, style in results.arrays["shown"]
    ]
    caption = (
        "What each generator draws for plain prompts; one column has one prompt and "
        "one seed."
    )
    figure = grid_figure(grids, prompts, caption)
    numbers = [
        {"method": name, "prompt": prompt, "mean": float(image.mean())}
        for name, grid in grids.items()
        for prompt, image in zip(prompts, grid, strict=True)
    ]
    return Drawing("canvas", figure, numbers, caption)
