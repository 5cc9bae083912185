"""All methods on the same requests, against the oracle and its own noise.

Question: which method leaves the model that retraining would have given, and at what
price?
Command: ``python -m experiments.compare`` (digits, about a minute on two CPU cores);
``--scale smoke|small|paper`` and ``--data.name`` choose a preset, every value of which
can be set.
Expect: "original" shows what forgetting has to change; "oracle vs oracle" shows how
small a gap can be. A method inside the floor cannot be told from retraining.
"""

from collections.abc import Sequence

import tyro

from experiments._config import Config
from experiments._main import chosen_preset, finish, labelled, main
from experiments._pipeline import compare


def command(arguments: Sequence[str]) -> int:
    """Parse, run, report; the exit code is 1 when a cell failed."""
    config = tyro.cli(
        Config,
        args=list(arguments),
        default=chosen_preset(arguments),
        prog="python -m experiments.compare",
        description=__doc__,
    )
    return compare(labelled(config), finish)


if __name__ == "__main__":
    main(command)
