"""Rows of a run for TensorBoard, and for Weights & Biases in its offline format."""

import importlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.frame.study import Results
from unlearn_jax.results.rows import Row, Rows

_STEPS = ("train_seed", "seed", "position", "step")
"""Coordinates that may be the step of a curve: the first that a row has."""


def export(results: Results, folder: Path, kind: str) -> Path:
    """Write all numbers of a run for another program; those that failed are left out.

    A tag is the metric and the coordinates that differ among its rows; a step is the
    training seed, or the place in a stream. What an earlier export wrote is replaced.

    Args:
        results: Of the run.
        folder: Of the run; gets a folder of the kind's name.
        kind: A name in ``EXPORTS``.

    Returns:
        The folder that was written.

    Raises:
        ModuleNotFoundError: the program's package is missing; names the extra.
        ValueError: no such kind.
    """
    if kind not in EXPORTS:
        raise ValueError(f"--export is {kind!r}; choose from {', '.join(EXPORTS)}")
    package, write = EXPORTS[kind]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{package} is missing: pip install 'unlearn_jax[{kind}]'"
        ) from None
    target = Path(folder) / kind
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    write(module, results, target)
    return target


def scalars(rows: Rows) -> Iterator[tuple[str, int, float]]:
    """Every number that there is as (tag, step, value); no two of one tag and step."""
    seen: dict[str, int] = {}
    for row in rows:
        if row.value is None:
            continue
        axis = next((name for name in _STEPS if isinstance(row.at.get(name), int)), "")
        tag = _tag(row, axis)
        step = int(row.at[axis]) if axis else 0
        place = f"{tag} {step}"
        seen[place] = seen.get(place, -1) + 1
        again = f"/{seen[place]}" if seen[place] else ""
        yield tag + again, step, row.value


def _tag(row: Row, axis: str) -> str:
    places = [
        str(value) if isinstance(value, str) else f"{name}={value}"
        for name, value in row.at.items()
        if name != axis and value != ""
    ]
    return "/".join([row.metric, *places])


def _tensorboard(module: Any, results: Results, folder: Path) -> None:
    writer = module.SummaryWriter(logdir=str(folder))
    writer.add_text("run", json.dumps(results.run._asdict(), indent=2))
    for tag, step, value in scalars(results.rows):
        writer.add_scalar(tag, value, step)
    writer.close()


def _wandb(module: Any, results: Results, folder: Path) -> None:
    run = results.run
    logged = module.init(
        project=f"unlearn_jax-{run.experiment}",
        id=run.id,
        name=run.config.get("name") or run.id,
        dir=str(folder),
        mode="offline",
        config={**run.config, "run": run.id, "dataset": run.dataset},
        settings=module.Settings(silent=True, console="off"),
    )
    steps: dict[int, dict[str, float]] = {}
    for tag, step, value in scalars(results.rows):
        steps.setdefault(step, {})[tag] = value
    for step in sorted(steps):
        logged.log(steps[step], step=step)
    logged.finish()


EXPORTS: Mapping[str, tuple[str, Callable[[Any, Results, Path], None]]] = {
    "tensorboard": ("tensorboardX", _tensorboard),
    "wandb": ("wandb", _wandb),
}
"""Package and writer by the name of the extra."""
