"""Trees of arrays on disk through Orbax: written whole or not at all."""

import contextlib
import gc
import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unlearn_jax.parallel.agreement import said_by_all, wrong_anywhere
from unlearn_jax.storage.checksum import (
    check_folder,
    checked_row,
    folder_digests,
    with_check,
)
from unlearn_jax.storage.write import (
    remove,
    remove_leftovers,
    temporary_path,
)
from unlearn_jax.tree import path_names

_CONTENTS = "contents.json"
"""Beside Orbax's files: what they hold, and size and SHA-256 of each, so that any
damage or another configuration is noticed, and named, before anything is read."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; says which and what to do."""


def save(path: str | Path, values: Any) -> None:
    """Write a tree of arrays (Variables, an ensemble, a FitState) to a folder.

    The folder appears under its name only once it is complete; a process that dies
    half-way leaves nothing that could be mistaken for a checkpoint. An older checkpoint
    of the same name can be loaded until the new one is complete. Where an array lies on
    devices of several processes, all of them call this, with one path that all see,
    and each writes its parts; else the first one alone.

    Args:
        path: Folder to create. An older checkpoint there is replaced; a folder that
            holds anything else is refused.
        values: Pytree of arrays; random keys go as ``jax.random.key_data``.

    Raises:
        CheckpointError: the disk is full or not writable, the folder is no checkpoint,
            or no array lies on devices of several processes and this is not the first.
            What goes wrong in one process that writes with others is raised in all; if
            that is while Orbax writes, once its patience with that process ends.
    """
    together = _over_processes(values)
    if jax.process_index() and not together:
        raise CheckpointError(
            f"process {jax.process_index()} of {jax.process_count()} was to write a "
            f"checkpoint, expected the first one; let process 0 write it"
        )
    first = not jax.process_index()
    target = Path(path).absolute()
    box = temporary_path(target.parent, _label(target))
    if together:
        box = box.with_name(said_by_all(box.name)[0])
    fresh, old = box / "new", box / "old"

    def prepare() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _settle(target)
        _refuse_others(target)
        remove_leftovers(target.parent, _label(target))
        box.mkdir(mode=0o700)

    def finish() -> None:
        _close(fresh, values)
        if target.exists():
            target.rename(old)
        fresh.rename(target)

    failure = ""
    with _quiet_orbax():
        for step in (prepare, lambda: _write(fresh, values, together), finish):
            try:
                if first or step not in (prepare, finish):
                    step()
            except Exception as error:  # Orbax and its back ends raise many kinds
                failure = _reason(error)
            if together:
                failure = next(filter(None, said_by_all(failure)), "")
            if failure:
                _forget_tasks()
                break
    if first and (target.exists() or not old.exists()):
        remove(box)
    if failure:
        raise CheckpointError(
            f"could not write the checkpoint {target} ({failure}); free room or "
            f"choose another folder, then run the same command again: everything "
            f"finished is kept"
        )


def load(path: str | Path, like: Any) -> Any:
    """Read a checkpoint back into the structure, shapes and dtypes of ``like``.

    Where an array is to lie on devices of several processes, all of them call this, and
    each reads its parts; else any process reads for itself.

    Args:
        path: Folder that :func:`save` wrote.
        like: Arrays or ``jax.ShapeDtypeStruct`` (``jax.eval_shape`` makes them), with a
            ``sharding`` where the arrays are to be laid over devices.

    Raises:
        CheckpointError: nothing there, half-written, or of another structure; the
            message names the folder and says what to do.
    """
    target = Path(path).absolute()
    abstract = jax.tree.map(_abstract, like)
    together = _over_processes(abstract)
    if not (together and jax.process_index()):
        _settle(target)
    if together:
        said_by_all("")
    if not target.is_dir():
        raise CheckpointError(
            f"there is no checkpoint at {target}: it was never finished, or the folder "
            f"was moved; run the command that makes it again"
        )
    try:
        _check(target, like, together)
        with _checkpointer(together) as checkpointer:
            if jax.process_count() == 1:
                found = checkpointer.restore(target, jax.tree.map(_filled, abstract))
                return jax.tree.map(_emptied, found, abstract)
            blank = jax.tree.map(lambda x: _filled(_without_own(x)), abstract)
            found = checkpointer.restore(target, blank)
        return jax.tree.map(
            lambda x, to: (
                x if _lies_apart(to) else jax.device_put(_emptied(x, to), to.sharding)
            ),
            found,
            abstract,
        )
    except Exception as error:  # Orbax raises many kinds; all mean: unusable here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointError(
            f"the checkpoint at {target} is damaged or was written by another "
            f"configuration ({type(error).__name__}: {reason[:200]}); delete that "
            f"folder and run the same command again, only this piece is computed anew"
        ) from error


def load_as_written(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint back in the shapes and dtypes that it was written with.

    For trees whose shapes are not known beforehand, since they grow; only for nested
    dicts with text as keys (without quotes), where the names in the folder tell the
    structure.

    Args:
        path: Folder that :func:`save` wrote.

    Raises:
        CheckpointError: nothing there, half-written, or another kind of tree.
    """
    target = Path(path).absolute()
    _settle(target)
    like: dict[str, Any] = {}
    try:
        leaves = checked_row((target / _CONTENTS).read_bytes())["leaves"]
        for name, text in leaves.items():
            keys = re.findall(r"\['([^']+)'\]", name)
            if not keys or name != "".join(f"['{key}']" for key in keys):
                raise ValueError(f"{name} is not made of the keys of dicts")
            dtype, _, shape = text.partition("[")
            inner = like
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = jax.ShapeDtypeStruct(
                tuple(json.loads(f"[{shape}")), jax.numpy.dtype(dtype)
            )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint at {target} does not tell its structure "
            f"({type(error).__name__}: {error}); it is missing, damaged, or no nested "
            f"dict: read it with ``load`` and a tree like it"
        ) from error
    return load(target, like)


def export_npz(path: str | Path, values: Any) -> None:
    """Write a tree as one ``.npz`` whose keys are the paths of the leaves."""
    flat = {
        "/".join(map(str, path_names(where))): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_leaves_with_path(values)
    }
    np.savez(path, allow_pickle=False, **flat)


def _write(folder: Path, values: Any, together: bool) -> None:
    """Orbax's files."""
    given = jax.tree.map(_filled, values)
    if jax.process_count() > 1:  # where Orbax takes no array of one process's devices
        given = jax.tree.map(lambda x: x if _lies_apart(x) else np.asarray(x), given)
    with _checkpointer(together) as checkpointer:
        checkpointer.save(folder, given)


def _close(folder: Path, values: Any) -> None:
    """What is written last of all: what the files hold."""
    contents = {"leaves": _leaves(values), "files": folder_digests(folder)}
    text = json.dumps(with_check(contents), indent=1) + "\n"
    (folder / _CONTENTS).write_text(text)


def _check(target: Path, like: Any, together: bool) -> None:
    """Structure and files; each of the processes that read together checks some."""
    problem: Exception | None = None
    try:
        contents = checked_row((target / _CONTENTS).read_bytes())
        _compare_leaves(_leaves(like), contents["leaves"])
        files = list(contents["files"].items())
        if together:
            files = files[jax.process_index() :: jax.process_count()]
        check_folder(target, dict(files))
    except Exception as error:
        problem = error
    if together:
        wrong_anywhere(problem)
    elif problem is not None:
        raise problem


def _checkpointer(together: bool) -> Any:
    """Orbax of all processes, or of this one: by itself it would wait for all."""
    import orbax.checkpoint as ocp

    if together or jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    own = jax.process_index()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=own,
            active_processes={own},
            barrier_sync_key_prefix=f"process-{own}",
        )
    )


def _over_processes(values: Any) -> bool:
    """Whether any array has, or is to have, a part in another process."""
    return any(map(_lies_apart, jax.tree.leaves(values)))


def _lies_apart(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and not sharding.is_fully_addressable


def _without_own(leaf: jax.ShapeDtypeStruct) -> Any:
    """What is to lie in this process alone is read as rows of NumPy."""
    return leaf if _lies_apart(leaf) else np.empty(leaf.shape, leaf.dtype)


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Without its logs: a full disk is pages of tracebacks there, and one line here."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        sys.unraisablehook = hook  # threads found the event loop closed: told there
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _forget_tasks() -> None:
    """Tasks that Orbax left behind complain when they are collected, now or later."""
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
    time.sleep(0.2)  # its threads are still writing, and fail one after another
    gc.collect()


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


def _reason(error: Exception) -> str:
    """The system's reason where the text has its number, else the first line."""
    text = str(error).strip() or type(error).__name__
    number = re.search(r"os_error_code='(\d+)'", text)
    return os.strerror(int(number[1])) if number else text.splitlines()[0][:200]


def _label(target: Path) -> str:
    """By which a checkpoint's own temporary folders are known among others'."""
    return hashlib.sha256(target.name.encode(errors="surrogatepass")).hexdigest()[:16]


def _settle(target: Path) -> None:
    """Finish a replacement that died between its two renames."""
    if target.exists() or not target.parent.is_dir():
        return
    for box in target.parent.glob(f".unlearn-{_label(target)}-*.tmp"):
        if (box / "old").is_dir() and (box / "new").is_dir():
            (box / "new").rename(target)
            return


def _refuse_others(target: Path) -> None:
    """A folder with files in it is replaced only if it is a checkpoint."""
    if target.is_dir() and (target / _CONTENTS).is_file():
        return
    if (
        target.is_file()
        or target.is_symlink()
        or (target.is_dir() and any(target.iterdir()))
    ):
        raise FileExistsError("it is there already and is no checkpoint")


def _compare_leaves(expected: dict[str, str], found: dict[str, str]) -> None:
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{name} is {found.get(name, 'missing')}, expected "
                f"{expected.get(name, 'absent')}"
            )


def _leaves(values: Any) -> dict[str, str]:
    """Dtype and shape of every leaf, by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(values)
    }


def _filled(leaf: Any) -> Any:
    """The leaf, or one zero where it has no entry at all, which Orbax refuses."""
    if np.prod(leaf.shape):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((1,), leaf.dtype, sharding=leaf.sharding)
    return np.zeros((1,), leaf.dtype)


def _emptied(found: Any, like: Any) -> Any:
    """What :func:`_filled` was made of."""
    return found if np.prod(like.shape) else jax.numpy.zeros(like.shape, like.dtype)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # Without a sharding Orbax would ask the stored file for one, and warn.
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    sharding = getattr(leaf, "sharding", None) or device
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
