"""Ensembles as data: members trained piece by piece, their outputs kept on disk.

A piece is some consecutive members, trained and applied to all points. It appears under
its name, ``members-000000-000008``, only when everything in it is complete and on disk:
a process, job or machine that is lost costs the pieces under way and nothing else, and
the same call goes on. Members can be asked for later that were not there before.
"""

import contextlib
import functools
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax

from unlearn_jax.ensembles.describe import describe
from unlearn_jax.ensembles.disk import (
    SETUP_FILE,
    Claims,
    Range,
    check_piece,
    finished_pieces,
    missing_ranges,
    open_setup,
    read_about,
)
from unlearn_jax.ensembles.piece import piece_trainer, row_digests
from unlearn_jax.ensembles.plan import Plan, checked_plan
from unlearn_jax.ensembles.read import Ensemble
from unlearn_jax.parallel.launch import PLACES, Where, launch
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.train.chunk import choose_chunk
from unlearn_jax.train.ensemble import CPU_CHUNK, choose_members
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch
from unlearn_kernels.target import target_platform

Way: TypeAlias = Literal["auto", "vmap", "loop"]


Progress: TypeAlias = Callable[
    [str, float], AbstractContextManager[Callable[[float], None]]
]


@contextlib.contextmanager
def silent(title: str, total: int | float) -> Iterator[Callable[[float], None]]:
    """No progress is shown."""
    del title, total
    yield lambda share: None


Remake: TypeAlias = Callable[[], tuple[Learner, Batch, Any, Plan]]


def train_ensemble(
    folder: Path,
    learner: Learner,
    data: Batch,
    points: Any,
    plan: Plan,
    *,
    chunk: int | None = None,
    members: Way = "auto",
    label: str = "ensemble",
    where: Where = "here",
    workers: int | None = None,
    remake: Remake | None = None,
    slurm: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Ensemble:
    """Train what is missing of an ensemble and open it.

    Args:
        folder: Belongs to this data, learner and plan alone. A plan with more members
            extends what lies there, one with fewer opens a part of it.
        learner: Model, loss, l2 and recipe.
        data: Training examples; their weights are those of the plan.
        points: Inputs (or a batch) that every member is applied to.
        plan: Keys and weights of the members.
        chunk: Members per piece under "vmap", rounded up to a multiple of the devices;
            None takes what memory allows (on CPU at most 16 for each device), and later
            what the folder began with.
        members: "vmap", "loop", or "auto" for the faster, as in ``fit_ensemble``.
        label: What progress calls it.
        where: "here", where several processes with the same folder share the pieces,
            or see :func:`unlearn_jax.parallel.launch.launch`.
        workers: Processes or jobs elsewhere.
        remake: Elsewhere needed: an importable function without arguments (a
            ``functools.partial`` of one will do) that makes learner, data, points and
            plan again; its result is checked against the folder.
        slurm: Parameters of SLURM jobs.
        progress: Shows that ``label`` is under way: given it and the number of members,
            a context that yields a function to be told of each share that is done.

    Returns:
        Ensemble of exactly the members of the plan.

    Raises:
        ValueError: the folder holds another ensemble, or shapes do not fit; nothing
            was trained.
        LaunchError: processes or jobs were lost; the same call goes on.

    Cost: m trainings and m × p forward passes; what is there is read and compared with
    its checksum.
    """
    folder = Path(folder).resolve()
    points = points.inputs if isinstance(points, Batch) else points
    plan = checked_plan(plan, data)
    if where not in PLACES or (where != "here" and remake is None):
        raise ValueError(
            f"where is {where!r}; expected one of {', '.join(PLACES)}, and but for "
            "'here' a function remake that makes learner and data in other processes"
        )
    if where != "here" and jax.process_count() > 1:
        raise ValueError(
            f"where is {where!r} in one of {jax.process_count()} processes that share "
            "the members already; take where='here', or start one process"
        )
    if where == "slurm" and _module(remake) == "__main__":
        raise ValueError(
            "SLURM jobs cannot import remake from the command that is running; define "
            "it in a module of its own"
        )
    folder.mkdir(parents=True, exist_ok=True)
    claims = Claims(folder)
    try:
        setup = describe(learner, data, points)
        way, size = _settle(
            folder,
            claims,
            setup,
            learner,
            data,
            len(plan.keys),
            chunk,
            members,
            workers,
        )
        _check_finished(folder, claims, plan)
        work = _Work(folder, learner, data, points, plan, way, size)
        pieces = _cut(folder, len(plan.keys), size)
        left = sum(part.last - part.first for part in pieces)
        with progress(label, len(plan.keys)) as advance:
            advance(len(plan.keys) - left)

            def ended(part: Range) -> None:
                advance(part.last - part.first)

            if where == "here" or remake is None:
                _train_here(work, claims, pieces, ended)
            else:
                x64 = bool(jax.config.read("jax_enable_x64"))
                launch(
                    functools.partial(_train_elsewhere, remake, folder, way, size, x64),
                    pieces,
                    where=where,
                    finished=functools.partial(_finished, folder),
                    workers=workers,
                    advance=ended,
                    logs=folder / "logs",
                    slurm=slurm,
                )
    finally:
        claims.close()
    return _open(work, setup)


class _Work(NamedTuple):
    """Description: everything that a piece is made from."""

    folder: Path
    learner: Learner
    data: Batch
    points: Any
    plan: Plan
    way: str
    size: int


def _train_here(
    work: _Work, claims: Claims, pieces: list[Range], ended: Callable[[Range], None]
) -> None:
    """All pieces; those that another process has claimed come last."""
    make = _maker(work)
    later = []
    for part in pieces:
        if _claim_and_make(work.folder, claims, make, part, wait=False):
            ended(part)
        else:
            later.append(part)
    for part in later:
        _claim_and_make(work.folder, claims, make, part, wait=True)
        ended(part)


def _train_elsewhere(
    remake: Remake, folder: Path, way: str, size: int, x64: bool, part: Any
) -> None:
    """One piece, in a process of its own."""
    jax.config.update("jax_enable_x64", x64)
    claims = Claims(folder)
    try:
        make = _remade(remake, folder, way, size)
        _claim_and_make(folder, claims, make, Range(*part), wait=True)
    finally:
        claims.close()


@functools.lru_cache(maxsize=1)
def _remade(
    remake: Remake, folder: Path, way: str, size: int
) -> Callable[[Range], None]:
    """Learner, data and plan in this process, once; refused if they are others."""
    learner, data, points, plan = remake()
    points = points.inputs if isinstance(points, Batch) else points
    claims = Claims(folder)
    try:
        open_setup(folder, claims, describe(learner, data, points))
    finally:
        claims.close()
    plan = checked_plan(plan, data)
    return _maker(_Work(folder, learner, data, points, plan, way, size))


def _maker(work: _Work) -> Callable[[Range], None]:
    make = piece_trainer(work.learner, work.data, work.points, work.way, work.size)
    return lambda part: make(work.folder, part, work.plan.keys, work.plan.weights)


def _claim_and_make(
    folder: Path,
    claims: Claims,
    make: Callable[[Range], None],
    part: Range,
    *,
    wait: bool,
) -> bool:
    """False if another process is at it; what it has finished is left alone."""
    with claims.hold(part, wait=wait) as held:
        if held:
            for missing in missing_ranges(finished_pieces(folder), part):
                make(missing)
        return held


def _module(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", "")


def _finished(folder: Path, part: Any) -> bool:
    return not missing_ranges(finished_pieces(folder), Range(*part))


def _cut(folder: Path, count: int, size: int) -> list[Range]:
    """Pieces of at most ``size`` members that are not there yet."""
    missing = missing_ranges(finished_pieces(folder), Range(0, count))
    return [
        Range(first, min(first + size, whole.last))
        for whole in missing
        for first in range(whole.first, whole.last, size)
    ]


def _settle(
    folder: Path,
    claims: Claims,
    setup: dict[str, Any],
    learner: Learner,
    data: Batch,
    count: int,
    chunk: int | None,
    members: Way,
    workers: int | None,
) -> tuple[str, int]:
    """Way and chunk: as asked, else as the folder began, else the best choice."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk of {chunk} members is none; give at least 1 or None")
    found: dict[str, Any] = {}
    if (folder / SETUP_FILE).exists():
        found = open_setup(folder, claims, setup)
    way = members if members != "auto" else found.get("way")
    if way is None:
        way = choose_members(learner, data)
    devices = len(jax.local_devices()) if way == "vmap" else 1
    chunk = 1 if way == "loop" else chunk
    if chunk is None and found.get("way") == way:
        chunk = found["chunk"]
    if chunk is None:
        share = -(-count // (devices * (workers or jax.process_count())))
        most = CPU_CHUNK if target_platform() == "cpu" else None
        chunk = devices * choose_chunk(learner, data, share, most=most)
    if not found:  # a program is filled up with copies: no more of them than needed
        chunk = min(chunk, count)
    chunk = -(-chunk // devices) * devices
    open_setup(folder, claims, {**setup, "way": way, "chunk": chunk})
    return way, chunk


def _check_finished(folder: Path, claims: Claims, plan: Plan) -> None:
    """Refuse the pieces of another plan; take away what is damaged."""
    for part in finished_pieces(folder):
        if part.first >= len(plan.keys):
            continue
        told = _rows_or_removed(folder, claims, part)
        if told is None:
            continue
        last = min(part.last, len(plan.keys))
        asked = row_digests(plan.keys, plan.weights, Range(part.first, last))
        if told[: len(asked)] != asked:
            raise ValueError(
                f"{folder / part.name} was trained with other keys or weights than "
                "these; choose another folder, or move this one away"
            )


def _rows_or_removed(folder: Path, claims: Claims, part: Range) -> list[str] | None:
    """What a piece tells of its members; None, and it is gone, if it is damaged."""
    try:
        return check_piece(folder, part)["rows"]
    except PieceError:
        pass
    with claims.hold(part, wait=False) as held:
        if not held:
            return None
        try:  # meanwhile another process may have trained it anew
            return check_piece(folder, part)["rows"]
        except PieceError as error:
            warnings.warn(
                f"{error} They are trained anew now.", RuntimeWarning, stacklevel=4
            )
            shutil.rmtree(folder / part.name, ignore_errors=True)
            return None


def _open(work: _Work, setup: dict[str, Any]) -> Ensemble:
    count = len(work.plan.keys)
    pieces = [p for p in finished_pieces(work.folder) if p.first < count]
    missing = missing_ranges(pieces, Range(0, count))
    if missing:
        raise PieceError(
            f"{work.folder} has lost {missing[0].name}, which was there a moment ago; "
            "run the same command again: just these members are trained anew"
        )
    seconds = 0.0
    for part in pieces:
        share = (min(part.last, count) - part.first) / (part.last - part.first)
        seconds += share * read_about(work.folder, part)["seconds"]
    shape, dtype = setup["outputs"]
    like = jax.eval_shape(work.learner.model.init, jax.random.key(0))
    return Ensemble(
        work.folder,
        count,
        len(work.points),
        tuple(pieces),
        like,
        tuple(shape),
        dtype,
        seconds,
    )
