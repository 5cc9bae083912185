"""A page about one accelerator: are the kernels right, and how fast is what.

    python benchmarks/gpu.py [PART ...] [--smoke] [--out benchmarks/results]

Writes ``gpu-NAME.md``, NAME being the device's, within eight minutes. Every part is a
process of its own and stands in the page as soon as it has ended: one that fails, or
takes longer than its share, is named and costs no other; whatever ends the whole leaves
a page of what is done. ``--smoke`` runs every part at a small scale, on any machine;
where there is no GPU, its kernels are run step by step.
"""

import argparse
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
SECONDS = 480.0


class Part(NamedTuple):
    """A table of the page, the seconds it may take, and what prints it."""

    title: str
    limit: float
    run: Callable[[bool], None]


def main() -> None:
    """Run the chosen parts, each in its process; or one of them, here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--smoke", action="store_true", help="a small scale")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the page's folder")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        for name in asked.parts:
            PARTS[name].run(asked.smoke)
        return
    write(asked.out, asked.parts or list(PARTS), asked.smoke)


def write(folder: Path, names: list[str], smoke: bool) -> None:
    """The page, part by part."""
    end = time.monotonic() + SECONDS
    told, _ = printed("machine", smoke, SECONDS)
    name = re.sub(r"[^a-z0-9]+", "-", told.split(",")[0].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"gpu-{name or 'unknown'}.md"
    command = " ".join(["python benchmarks/gpu.py", *["--smoke"][: int(smoke)]])
    page.write_text(f"# {told.strip() or 'no device'}\n\n    {command}\n")
    print(page, flush=True)
    for part in names:
        if part == "machine":
            continue
        begun = time.monotonic()
        limit = min(PARTS[part].limit, end - begun)
        text, trouble = printed(part, smoke, limit) if limit > 5 else ("", "no time")
        seconds = time.monotonic() - begun
        with page.open("a") as out:
            out.write(f"\n## {PARTS[part].title} ({seconds:.0f} s)\n\n{text.strip()}\n")
            out.write(f"\nNot finished: {trouble}\n" if trouble else "")
        print(f"{part}: {seconds:.0f} s {trouble}", flush=True)


def printed(part: str, smoke: bool, limit: float) -> tuple[str, str]:
    """What a part prints in a process of its own, and what went wrong."""
    words = [sys.executable, __file__, part, "--here", *["--smoke"][: int(smoke)]]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        return out, f"stopped after {limit:.0f} s"
    if process.returncode:
        last = errors.strip().splitlines()[-1:] or ["no word"]
        return out, f"exit {process.returncode}, {last[0]}"
    return out, ""


def machine(smoke: bool) -> None:
    """The device's name, how many there are, and JAX's version."""
    import jax

    first = jax.devices()[0]
    held = (first.memory_stats() or {}).get("bytes_limit", 0)
    memory = f", {held / 2**30:.0f} GiB for JAX" if held else ""
    many = len(jax.devices())
    print(f"{first.device_kind}, {many} device(s){memory}, jax {jax.__version__}")


def kernels(smoke: bool) -> None:
    """Every form of the kernels against the formula in float64 on the host."""
    import gpu_kernels

    gpu_kernels.check(smoke)


def speed(smoke: bool) -> None:
    """The kernels' own benchmark, operation by operation."""
    from unlearn_kernels import bench

    for operation in ("fisher_diagonal", "squared_norm", "sign_projection"):
        bench.table(operation, 0.02 if smoke else 2.0, smallest=smoke)


def diagonals(smoke: bool) -> None:
    """Fisher diagonals, beside PyTorch's peers where they are installed."""
    import curvature
    import workloads

    sizes = (32, 4, 4, 1) if smoke else (4096, 2048, 1024, 256)
    makers = (
        *(workloads.mlp, workloads.cnn, workloads.language_model),
        *([] if smoke else [workloads.resnet18]),
    )
    for make, count in zip(makers, sizes, strict=False):
        naive = None if make is workloads.resnet18 else min(count, 64)
        curvature.diagonal(make(count), None, naive, 1 if smoke else 5)


def ensembles(smoke: bool) -> None:
    """Members trained at once against one after another."""
    import ensemble

    words = ["--quick", "--without-processes", "--without-map"]
    scale = ["--members", "2", "--nets", "tiny"] if smoke else ["--nets", "tiny", "cnn"]
    sys.argv = ["ensemble.py", *words, *scale]
    ensemble.main()


def kronecker(smoke: bool) -> None:
    """EK-FAC factors of ResNet-18 in gradients of the same examples."""
    import curvature
    import workloads
    from timing import table, turns

    from unlearn_jax.curvature.eigen_kronecker import ekfac

    work = workloads.mlp(32) if smoke else workloads.resnet18(512)
    fit = functools.partial(ekfac, None, work.objective)
    contenders: dict[str, Callable[[], Any]] = {
        "gradient, JAX": curvature.gradient(work, min(128, len(work.batch.weights))),
        "EK-FAC fit": curvature.ready(fit, work.params, work.batch),
    }
    seconds = turns(contenders, 1 if smoke else 3)
    title = f"{work.name}, {len(work.batch.weights)} examples"
    table(title, "g", seconds, seconds["gradient, JAX"])


def epoch(smoke: bool) -> None:
    """One epoch of ResNet-18 on noise of CIFAR-10's size, float32 and bfloat16."""
    import training
    from timing import turns

    print("| net | arithmetic | examples | seconds | examples a second |")
    print("|---|---|---:|---:|---:|")
    model, count = ("mlp", 256) if smoke else ("resnet18", 50_000)
    work = training.Work(model, model, (32, 32, 3), count, 1, 1)
    for dtype in ("float32", "bfloat16"):
        run = training.ours(work, training.images(work.image, count), arithmetic=dtype)
        (one,) = turns({dtype: run}, 1).values()
        rate = count / one.wall
        print(f"| {model} | {dtype} | {count} | {one.wall:.1f} | {rate:.0f} |")


PARTS = {
    "machine": Part("Machine", 60, machine),
    "kernels": Part("Kernels against the formula", 90, kernels),
    "speed": Part("Kernels' time", 90, speed),
    "diagonals": Part("Curvature", 120, diagonals),
    "epoch": Part("Training", 90, epoch),
    "kronecker": Part("EK-FAC", 90, kronecker),
    "ensembles": Part("Ensembles", 90, ensembles),
}
"""In the order of what one would miss most."""

if __name__ == "__main__":
    main()
