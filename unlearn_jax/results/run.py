"""Where records came from: the configuration, the code and the machine of a run."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from unlearn_jax.results.record import RecordError, decode_number, encode_number
from unlearn_jax.storage.checksum import checked_row, with_check
from unlearn_jax.storage.plain import plain_config
from unlearn_jax.storage.source import source_digest
from unlearn_jax.storage.write import write_bytes

RUN_FILE = "run.json"
SCALES = ("smoke", "small", "paper", "custom")


class Run(NamedTuple):
    """Where records came from; ``run.json`` beside them.

    Attributes:
        id: UTC time of the start and ``config_hash``; the name of the run's folder.
        experiment: Name of the experiment.
        scale: ``smoke``, ``small``, ``paper`` or ``custom``.
        config: The whole configuration, as JSON holds it.
        config_hash: Six hexadecimal digits of the configuration's SHA-256.
        commit: Git commit of this code; ``unknown`` outside a repository.
        dirty: Whether files differed from that commit.
        started: UTC, ISO 8601.
        seconds: Length of the run; None until it is finished.
        python: Version.
        jax: Version.
        flax: Version.
        device: What it ran on.
        x64: Whether 64-bit floats were on.
        dataset: The data's true title.
        command: What to type to run it again.
        inputs: Digests of what the configuration only names: data, index files.
        records: Number of records written; None until it is finished.
        source: Digest of the source that computes; an edited file changes it.
    """

    id: str
    experiment: str
    scale: str
    config: dict[str, Any]
    config_hash: str
    commit: str
    dirty: bool
    started: str
    seconds: float | None
    python: str
    jax: str
    flax: str
    device: str
    x64: bool
    dataset: str
    command: str
    inputs: dict[str, str]
    records: int | None
    source: str = ""


def new_run(
    experiment: str,
    scale: str,
    config: Any,
    *,
    dataset: str,
    command: str | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Run:
    """Describe a run that starts now.

    Args:
        experiment: Name of the experiment, also its folder's.
        scale: One of ``SCALES``.
        config: A dataclass or mapping; paths, tuples and nested dataclasses are fine.
        dataset: The data's true title, as the tables will print it.
        command: What to type to run it again; by default this process's own.
        inputs: Digests of what the configuration only names, by name.

    Raises:
        ValueError: unknown scale.
        TypeError: the configuration holds something that JSON cannot.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}; expected one of {', '.join(SCALES)}")
    plain = plain_config(config)
    digest = config_hash(plain)
    now = datetime.now(UTC)
    commit, dirty = git_state()
    return Run(
        id=f"{now:%Y%m%dT%H%M%S}-{digest}",
        experiment=experiment,
        scale=scale,
        config=plain,
        config_hash=digest,
        commit=commit,
        dirty=dirty,
        started=now.isoformat(timespec="seconds"),
        seconds=None,
        python=platform.python_version(),
        jax=jax.__version__,
        flax=_version("flax"),
        device=_device(),
        x64=bool(jax.config.read("jax_enable_x64")),
        dataset=dataset,
        command=_command() if command is None else command,
        inputs=dict(inputs or {}),
        records=None,
        source=source_digest(),
    )


def config_hash(config: Any) -> str:
    """Six hexadecimal digits that change when the configuration does."""
    text = json.dumps(plain_config(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def write_run(folder: Path, run: Run) -> None:
    """Write ``run.json`` into the run's folder, whole or not at all.

    Its last entry, ``"check"``, is the checksum of the others.
    """
    row = with_check(run._asdict() | {"seconds": encode_number(run.seconds)})
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    write_bytes(Path(folder) / RUN_FILE, text.encode())


def read_run(folder: Path) -> Run:
    """Read what ``write_run`` wrote.

    Raises:
        FileNotFoundError: the folder holds no ``run.json``.
        RecordError: the file is damaged.
    """
    path = Path(folder) / RUN_FILE
    try:
        row = checked_row(path.read_bytes())
        row["seconds"] = decode_number(row["seconds"])
        return Run(**row)
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(
            f"{path}: not a description of a run ({error}); put it back from a copy, "
            "or delete it and run the same command again: it goes on from what is kept "
            "beside it"
        ) from None


def git_state() -> tuple[str, bool]:
    """Commit of this code and whether files differ from it; never fails."""
    file = Path(__file__).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return "unknown", False  # not a repository, or this code is no part of it
    commit = _git(file.parent, "rev-parse", "HEAD")
    if commit is None:
        return "unknown", True
    return commit, _git(file.parent, "status", "--porcelain") != ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device() -> str:
    devices = jax.local_devices()  # so that it is the same run in several processes
    if devices[0].platform == "cpu":
        return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    return f"{len(devices)} \N{MULTIPLICATION SIGN} {devices[0].device_kind}"


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = getattr(spec, "name", None)
    start = ["-m", name.removesuffix(".__main__")] if name else sys.argv[:1]
    return shlex.join(["python", *start, *sys.argv[1:]])
