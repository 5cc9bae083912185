"""Independent pieces of work: here, in processes of this machine, or through SLURM."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from unlearn_jax.parallel.local import LaunchError, run_in_processes
from unlearn_jax.parallel.slurm import run_in_slurm

PieceT = TypeVar("PieceT")
Where: TypeAlias = Literal["here", "local", "slurm"]
PLACES = ("here", "local", "slurm")


def launch(
    function: Callable[[PieceT], object],
    pieces: Sequence[PieceT],
    *,
    where: Where = "here",
    finished: Callable[[PieceT], bool] | None = None,
    workers: int | None = None,
    advance: Callable[[PieceT], object] | None = None,
    logs: Path | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> None:
    """Call ``function`` once for each piece that is not finished.

    A piece writes what it makes; nothing is returned. A piece that ``finished`` names
    is skipped, so that starting again is calling this again: what is lost with a
    process, a job or the power is the pieces that were under way.

    Args:
        function: Of one piece. But for "here" it must be importable by name (or a
            ``functools.partial`` of such a function) and is made anew, once, in every
            process.
        pieces: What to work on; plain values.
        where: "here" one after another; "local" in processes of this machine, each with
            its share of the cores, a process that dies is replaced once; "slurm" as an
            array of jobs (needs the optional package submitit).
        finished: Whether a piece is done already; asked before it is given out.
        workers: Processes ("local", default two) or jobs ("slurm", default one for each
            piece).
        advance: Called here with each piece that has ended well.
        logs: Folder that every machine of the cluster sees ("slurm").
        slurm: Parameters of the jobs as ``submitit`` names them, such as
            ``{"timeout_min": 60, "slurm_partition": "short"}``.

    Raises:
        LaunchError: a process or a job was lost; all other pieces were worked on.
        ValueError: an unknown place, or fewer than one worker.
        Exception: what ``function`` itself raised, after the others ended.
    """
    if where not in PLACES:
        raise ValueError(f"where is {where!r}; choose from {', '.join(PLACES)}")
    if workers is not None and workers < 1:
        raise ValueError(f"{workers} workers cannot work; give at least 1")
    left = [piece for piece in pieces if finished is None or not finished(piece)]
    done = advance or (lambda piece: None)
    if where == "local" and left:
        run_in_processes(function, left, workers=workers or 2, advance=done)
    elif where == "slurm" and left:
        if logs is None:
            raise ValueError(
                "SLURM jobs need a folder for their logs that every machine sees; give "
                "logs"
            )
        run_in_slurm(
            function,
            left,
            jobs=workers or len(left),
            advance=done,
            logs=logs,
            options=slurm or {},
        )
    else:
        for piece in left:
            function(piece)
            done(piece)
    missing = [p for p in left if finished is not None and not finished(p)]
    if missing:
        raise LaunchError(
            f"{len(missing)} of {len(left)} pieces are not finished, the first is "
            f"{missing[0]!r}; run the same command again: only these are worked on"
        )
