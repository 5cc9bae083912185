"""What is kept and what is erased, by way and by number of requests."""

import numpy as np

from experiments.editing.config import Config
from experiments.frame.findings import Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.rows import Rows


def show(config: Config, results: Results) -> list[Finding]:
    """One table: a line for each way after each number of requests."""
    rows = results.rows
    header = (
        "way",
        "requests",
        "kept: class ↑",
        "kept: style ↑",
        "first requests: erased ↑",
        "all requests: erased ↑",
        "unasked sentences: erased",
        "from the batch",
        "ms a request ↓",
    )
    lines = []
    for way, count in [
        ("before", 0),
        *((way, count) for count in sorted(config.counts) for way in config.ways),
    ]:
        at = {"way": way, "requests": count}
        seconds = _one(rows, "request_seconds", way=way)
        lines.append(
            [
                way,
                str(count),
                _one(rows, "class_right", **at, part="kept"),
                _one(rows, "style_right", **at, part="kept"),
                *(
                    _without(_one(rows, "class_right", **at, part=part))
                    for part in ("first", "asked", "unasked")
                ),
                _one(rows, "from_batch", **at),
                None if seconds is None else 1e3 * seconds,
            ]
        )
    notes = (
        "Kept: images of even digits, plain prompts, and whether they are of the class "
        "and of the style. Erased: share of images of sentences about odd digits that "
        f"are not of them. {config.samples * 20} images each; a rejected image is of "
        "nothing.",
        f"First requests: the first {min(config.counts)}. Unasked: sentences about the "
        "same digits that no request named.",
        f"λ = {config.l2:g}; kept prompts are rows of weight {config.preserve_weight:g}"
        f" in every request (reset) or once (carried); null space: carried, and "
        f"confined to the {config.free} directions that these have least of.",
        "From the batch: distance of the maps from those of all requests at once, over "
        "the size of the change. Milliseconds: the median of the compiled step.",
    )
    caption = f"Sentences are erased one after another. {about(results.run)}"
    return [Finding([table("editing", caption, header, lines, notes)])]


def _one(rows: Rows, metric: str, **at: str | int) -> float | None:
    found = [row.value for row in rows.where(metric, **at) if row.value is not None]
    return float(np.mean(found)) if found else None


def _without(share: float | None) -> float | None:
    return None if share is None else 1 - share
