"""Run an experiment's command as a user would, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "--scale smoke --data.limit 300 --model.width 16 --recipe.epochs 3 "
    "--requests random:0.1 class:3 --methods finetune ssd random_labels "
    "--seeds.train 2 --oracles 3 --relearn-steps 5"
).split()


def over(words: list[str], more: list[str]) -> list[str]:
    """The words, less the flags that others give anew, and then the others."""
    given, kept, left_out = {word for word in more if word.startswith("--")}, [], False
    for word in words:
        left_out = word in given if word.startswith("--") else left_out
        kept += [] if left_out else [word]
    return [*kept, *more]


def environment(cache: Path | None = None) -> dict[str, str]:
    """This process's environment; ``cache`` for a run that may spoil what it keeps."""
    paths = [str(ROOT), str(ROOT / "kernels")]
    known = {k: v for k, v in os.environ.items() if k != "UNLEARN_DATA"}
    known |= {"PYTHONPATH": os.pathsep.join(paths)}
    return known | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {})


def start(
    name: str,
    words: list[str],
    cache: Path | None = None,
    *,
    largest_file: int | None = None,
) -> subprocess.Popen:
    """The command as a running process; ``largest_file`` in KiB plays a full disk."""
    command = [sys.executable, "-m", f"experiments.{name}", *words]
    if largest_file is not None:
        limit = f'ulimit -f {largest_file}; exec "$@"'
        command = ["bash", "-c", limit, "bash", *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(
    name: str,
    words: list[str],
    cache: Path | None = None,
    *,
    largest_file: int | None = None,
) -> tuple[int, str, str]:
    """Run the command to its end: exit code, standard output, standard error."""
    process = start(name, words, cache, largest_file=largest_file)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err
