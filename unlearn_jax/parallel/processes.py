"""One program over several processes: they find each other, and end together."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unlearn_jax.parallel.watch import Links, watched

HEARTBEAT_SECONDS = 30
"""After so long without a sign of life JAX itself takes a process for lost."""
COORDINATOR, COUNT, INDEX = (
    "UNLEARN_COORDINATOR",
    "UNLEARN_PROCESSES",
    "UNLEARN_PROCESS",
)
"""Environment variables of processes that no cluster started: where the first one
listens (``host:port``), how many there are, and which one this is, from 0."""
_TOLD = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_INDEXED = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
ALONE = Links(0, 1, {})
"""What a program of one process has: nobody to tell."""


@contextlib.contextmanager
def joined(environment: Mapping[str, str] | None = None) -> Iterator[Links]:
    """Within this block the processes of one program see each other's devices.

    Enter it before anything touches a device. SLURM tasks, Open MPI ranks and indexed
    jobs of Kubernetes are detected by JAX; processes of one's own are named by
    ``UNLEARN_COORDINATOR``, ``UNLEARN_PROCESSES`` and ``UNLEARN_PROCESS``. A process
    that is alone stays as it is. Where one ends inside of the block, the others end
    too, each with a line and exit code 3, instead of waiting for it for ever.

    Args:
        environment: Read instead of ``os.environ``.

    Yields:
        This process's number, how many there are, and the way for the first one to
        tell the others something.

    Raises:
        ValueError: some of the three variables are set and others are not, or they are
            no numbers that fit.
    """
    options = _options(os.environ if environment is None else environment)
    if options is None:
        yield ALONE
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        **options,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )
    with watched() as links:
        yield links
    jax.distributed.shutdown()


def check_alone(what: str, environment: Mapping[str, str] | None = None) -> None:
    """Refuse to run in one of several processes, before any of them begins.

    Args:
        what: What several processes would do several times.
        environment: Read instead of ``os.environ``.

    Raises:
        ValueError: there are several, or what :func:`joined` refuses.
    """
    if _options(os.environ if environment is None else environment) is not None:
        raise ValueError(
            f"{what} is for one process, got one of several: start it once "
            f"(srun --ntasks 1)"
        )


def whole(mesh: Mesh, values: Any) -> Any:
    """Every leaf on all devices of a mesh, so that each process can read it.

    Cost: all numbers are sent to all devices.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda given: given, out_shardings=everywhere)(values)


def _options(environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What ``jax.distributed.initialize`` is told; None where there is one process."""
    told = {name: environment.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    if all(value is None for value in told.values()):
        several = any(environment.get(name, "1") != "1" for name in _TOLD)
        indexed = all(name in environment for name in _INDEXED)
        return {} if several or indexed else None
    missing = [name for name, value in told.items() if not value]
    if missing:
        raise ValueError(
            f"{', '.join(n for n in told if n not in missing) or 'none'} of the "
            f"variables of several processes is set, {', '.join(missing)} is not; set "
            f"all of {', '.join(told)}, or none"
        )
    address, *numbers = (str(value) for value in told.values())
    if not all(number.isdecimal() for number in numbers) or not (
        int(numbers[1]) < int(numbers[0])
    ):
        raise ValueError(
            f"{COUNT}={numbers[0]} and {INDEX}={numbers[1]}, expected a count of "
            f"processes and a number from 0 to below it"
        )
    count, index = map(int, numbers)
    if count == 1:
        return None
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": index,
    }
