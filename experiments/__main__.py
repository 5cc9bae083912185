"""The command ``unlearn-jax STUDY [options]``.

The same as ``python -m experiments.STUDY``, for where ``experiments`` is a name that a
folder of yours has already.
"""

import sys

from experiments.frame.command import main
from experiments.list import command as list_command
from experiments.report import command as report_command
from experiments.studies import STUDIES
from experiments.unlearn import command as unlearn_command

COMMANDS = {"list": list_command, "report": report_command, "unlearn": unlearn_command}


def run() -> None:
    """Hand what follows the first word to the study or command of that name."""
    known = [*STUDIES, *(name for name in COMMANDS if name not in STUDIES)]
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: unlearn-jax STUDY [options]")
        for each in known:
            study = STUDIES.get(each)
            print(f"  {each:22} {study.title if study else ''}".rstrip())
        return
    if name not in known:
        print(
            f"error: there is no {name!r}; choose from {', '.join(known)}",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.argv = [f"unlearn-jax {name}", *sys.argv[2:]]
    main(COMMANDS[name] if name in COMMANDS else STUDIES[name])


if __name__ == "__main__":
    run()
