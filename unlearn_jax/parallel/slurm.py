"""Pieces as an array of SLURM jobs, through submitit."""

import getpass
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_jax.parallel.local import LaunchError

_POLL = 2.0
_SETTLE = 10.0
"""Seconds that a result may take to become visible after its job has left the queue."""


def run_in_slurm(
    function: Callable[[Any], object],
    pieces: Sequence[Any],
    *,
    jobs: int,
    advance: Callable[[Any], object],
    logs: Path,
    options: Mapping[str, Any],
) -> None:
    """Deal the pieces to jobs, submit them as one array, wait; see ``launch``.

    Whether a job still exists is asked of ``squeue``, not of the accounting data base,
    which many small clusters do without.

    Raises:
        ModuleNotFoundError: submitit is not installed.
        LaunchError: jobs left the queue without a result (cancelled, killed, lost), or
            were not taken: no cluster, or a parameter that it does not know.
    """
    try:
        import submitit
    except ImportError:
        raise ModuleNotFoundError(
            "SLURM jobs are submitted through submitit, which is not installed: "
            'pip install "unlearn_jax[slurm]"'
        ) from None
    jobs = min(jobs, len(pieces))
    groups = [list(pieces[number::jobs]) for number in range(jobs)]
    try:
        executor = submitit.AutoExecutor(folder=str(logs), cluster="slurm")
        executor.update_parameters(**{"name": "unlearn_jax", **options})
        submitted = executor.map_array(_work_off, [function] * jobs, groups)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        said = lines[0] if isinstance(error, NameError) else lines[-1]
        raise LaunchError(
            f"no job was submitted: {said.strip()} (parameters {dict(options)}; "
            "needed: a machine on which sbatch works)"
        ) from error
    waiting = dict(zip(submitted, groups, strict=True))
    errors: list[str] = []
    gone: dict[Any, float] = {}
    while waiting:
        time.sleep(_POLL)
        alive = _in_queue(job.job_id for job in waiting)
        for job in list(waiting):
            if Path(job.paths.result_pickle).exists():
                error = job.exception()
                if error is None:
                    for piece in waiting[job]:
                        advance(piece)
                else:
                    errors.append(
                        f"job {job.job_id} failed ({_reason(error)}; its log is "
                        f"{job.paths.stderr})"
                    )
                del waiting[job]
            elif alive is None or job.job_id in alive:
                gone.pop(job, None)
            elif time.monotonic() - gone.setdefault(job, time.monotonic()) > _SETTLE:
                errors.append(
                    f"job {job.job_id} left the queue without a result "
                    f"(cancelled or lost; its log is {job.paths.stderr})"
                )
                del waiting[job]
    if errors:
        raise LaunchError(
            f"{len(errors)} of {jobs} jobs did not end well: {errors[0]}. Run the same "
            "command again: what is finished is kept"
        )


def _reason(error: BaseException) -> str:
    """The last line of the traceback that submitit passes on, which is many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if line.partition(":")[0].endswith("Error")]
    return named[-1] if named else type(error).__name__


def _work_off(function: Callable[[Any], object], pieces: Sequence[Any]) -> None:
    """One job."""
    for piece in pieces:
        function(piece)


def _in_queue(identifiers: Any) -> set[str] | None:
    """Those jobs of this user that SLURM still knows; None if it does not answer."""
    wanted = set(identifiers)
    try:
        asked = subprocess.run(
            [
                "squeue",
                "--noheader",
                "--array",
                "--format=%i",
                "--user",
                getpass.getuser(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return wanted & set(asked.stdout.split())
