"""A tiny ensemble for processes of their own: ``python ensemble_work.py FOLDER COUNT``.

With KILL_AT=N in the environment the process kills itself when it is about to give the
Nth piece its name, but for those that find a file "killed" in the folder.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import tiny

from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.ensembles import disk
from unlearn_jax.ensembles.plan import make_plan
from unlearn_jax.ensembles.train import train_ensemble

CHUNK = 2


@functools.cache
def same_learner(epochs):
    return tiny.learner("mlp", epochs=epochs)  # whose programs are compiled once


def remake(folder=None, count=6, epochs=4):
    data = tiny.examples()
    learner = same_learner(epochs)
    plan = make_plan(3, subset_masks(1, count, len(data.targets), 0.5))
    if folder is not None:
        _arm(Path(folder))
    return learner, data, np.asarray(data.inputs[:20]), plan


def _arm(folder):
    rename, renamed = os.rename, []
    trained = folder / "trained"

    def watched(old, new):
        if Path(new).name.startswith("members-"):
            renamed.append(new)
            mark = folder / "killed"
            if len(renamed) == int(os.environ.get("KILL_AT", 0)) and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        rename(old, new)
        with trained.open("a") as file:
            file.write(Path(new).name + "\n")

    disk.os.rename = watched


def main():
    jax.config.update("jax_enable_x64", True)
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    from ensemble_work import remake  # by name: other processes import it

    made = functools.partial(remake, str(folder), count, options.pop("epochs", 4))
    asked = {"chunk": CHUNK, "members": "vmap"} | options
    folder.mkdir(parents=True, exist_ok=True)
    if asked.get("where", "here") != "here":
        learner, data, points, plan = remake(None, *made.args[1:])
        train_ensemble(folder, learner, data, points, plan, remake=made, **asked)
    else:
        train_ensemble(folder, *made(), **asked)


if __name__ == "__main__":
    main()
