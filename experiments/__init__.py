"""Experiments: a configuration in, records out.

``python -m experiments.compare`` all methods on the same requests;
``python -m experiments.unlearn METHOD`` one method; ``python -m experiments.list`` what
there is; ``python -m experiments.report RUN`` tables and figures of a finished run.
"""

import sys
from types import TracebackType


def _brief(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted before anything was begun", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # a command is being imported, its main not yet reached
    sys.excepthook = _brief
