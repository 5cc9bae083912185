"""Experiments: a configuration in, records out.

``python -m experiments.compare`` all methods on the same requests;
``python -m experiments.unlearn METHOD`` one method; ``python -m experiments.list`` what
there is; ``python -m experiments.report RUN`` tables and figures of a finished run.
"""

import os
import sys
from types import TracebackType

# Threads of OpenBLAS, which solves JAX's eigenproblems on CPU, wait for one another by
# spinning: beside other programs a matrix of 785 rows took 16 s on two threads and
# 0.5 s on one (1.4 and 0.04 s of CPU time). Read when the library is loaded; a host of
# many idle cores may set more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _brief(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted before anything was begun", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # a command is being imported, its main not yet reached
    sys.excepthook = _brief
