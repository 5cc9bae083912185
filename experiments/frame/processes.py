"""Words of a command line by which one of several processes finds the others."""

import os
from collections.abc import Iterable

from unlearn_jax.parallel.processes import COORDINATOR, COUNT, INDEX

FLAGS = {"--coordinator": COORDINATOR, "--processes": COUNT, "--process": INDEX}
"""They stand for the variables, and are no part of a configuration: the run is the same
in any number of processes."""
TOLD = (
    "Started several times, the runs share the training of ensembles: by SLURM, Open "
    "MPI or an indexed Kubernetes job, or with --coordinator HOST:PORT --processes N "
    "--process I."
)


def processes_told(arguments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """What is known of other processes, and the words that are left.

    Args:
        arguments: Of the command line; ``--flag value`` or ``--flag=value``.

    Returns:
        The environment's variables with those that the words name, and other words.

    Raises:
        ValueError: a flag without its value.
    """
    told, left = dict(os.environ), []
    words = iter(arguments)
    for word in words:
        flag, given, value = word.partition("=")
        if flag not in FLAGS:
            left.append(word)
            continue
        value = value if given else next(words, "")
        if not value:
            raise ValueError(f"{flag} has no value, expected {flag} VALUE")
        told[FLAGS[flag]] = value
    return told, left
