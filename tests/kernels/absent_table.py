"""A page about the bytes that programs hold on absent devices.

    python tests/kernels/absent_table.py LINES... > benchmarks/results/absent-devices.md

Each file holds lines that ``absent.py`` printed. Where a program was compiled twice the
later line counts; a line that is kept from an earlier commit names it, by the key
"commit". Run it where the compilers are: the page names their versions.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import absent

HEAD = """# Bytes that programs hold on absent devices

Arguments, results and scratch in MiB, by the compilers' own account; nothing was run.
An empty cell was not compiled. A v5e has 16 GiB, a v6e 32, this H100 79. What CUDA's
eigensolver takes while it runs is in no account.
{versions}.

    export PYTHONPATH=.:kernels:tests:tests/kernels
    python tests/kernels/absent.py H100 > small         # and >> v5e, v6e
    python tests/kernels/absent.py H100 --double > double                # and >> v5e
    python tests/kernels/absent.py H100 --large > large
    python tests/kernels/absent.py H100 --large --over 8 >> large        # and --model 8
    python tests/kernels/absent_table.py large small double > absent-devices.md
"""
LARGE = """
## Curvature at sizes worth a table

float32. MLP of 1,024, CNN of 1,024 examples and language model of 256 texts
(`benchmarks/workloads.py`), ResNet-18 of 128 images (32, 32, 3); a transformer of
1,235,814,400 parameters (`tests/kernels/language_programs.py`), 4 texts of 512 tokens,
layers in bfloat16. "in 4 by 2": a mesh, examples over its first axis, parameters and
results over both; bytes of one device. Each part of the data gathers the parameters:
for little memory the second axis is to be long.
"""
SMALL = """
## All programs

float32, few examples: what is shown is that the compilers take them.
"""
DOUBLE = """
## In float64
"""
CUBLAS = (
    "products by cuBLAS (XLA_FLAGS=--xla_gpu_enable_triton_gemm=false): XLA's own form "
    "by Triton finds no tiles for one of them, which is an INTERNAL error"
)


def page(lines: list[dict[str, Any]]) -> str:
    """All tables, and what was refused below them."""
    packages = dict.fromkeys(
        absent.NEEDS[absent.DEVICES[line["device"]]] for line in lines
    )
    versions = [f"{name.replace('_', '-')} {version(name)}" for name in packages]
    text = HEAD.format(versions=", ".join([*versions, f"JAX {version('jax')}"]))
    kinds = {LARGE: (True, False), SMALL: (False, False), DOUBLE: (False, True)}
    for title, kind in kinds.items():
        own = [line for line in lines if (line["large"], line["double"]) == kind]
        if own:
            told = "" if kind[0] else f"{account(own)}\n\n"
            text += f"{title}\n{told}{table(own)}\n"
    return text


def account(lines: list[dict[str, Any]]) -> str:
    """How many programs each compiler took, and how long that lasted."""
    last = {(line["device"], line["name"]): line for line in lines}
    count = len({name for _, name in last})
    told = []
    for device in sorted({device for device, _ in last}):
        own = [line for line in last.values() if line["device"] == device]
        taken = sum("error" not in line for line in own)
        text = f"* {device}: {taken} of {count}"
        timed = [line for line in own if "seconds" in line]
        if timed:
            longest = max(timed, key=lambda line: line["seconds"])
            total = sum(line["seconds"] for line in timed)
            text += (
                f"; {len(timed)} of them took {total:,.0f} s of processor time to "
                f"compile, the longest {longest['seconds']:.0f} s (`{longest['name']}`)"
            )
        told.append(f"{text}.")
    return "\n".join(told)


def table(lines: list[dict[str, Any]]) -> str:
    """By program and device; a number points to what went wrong."""
    found: dict[str, dict[str, str]] = {}
    wrong: dict[str, None] = {}
    for line in lines:
        device = line["device"]
        if line["mesh"]:
            device += " in {} by {}".format(*line["mesh"])
        if "error" in line:
            sentence = " ".join(line["error"].split())[:300]
            wrong.setdefault(sentence, None)
            cell = f"({list(wrong).index(sentence) + 1})"
        else:
            parts = "arguments", "results", "scratch"
            held = sum(line[part] for part in parts) / 2**20
            cell = f"{held:,.1f}" if held >= 1 else f"{held:.4f}"
            if line.get("cublas"):
                wrong.setdefault(CUBLAS, None)
                cell += f" ({list(wrong).index(CUBLAS) + 1})"
        if "commit" in line:
            cell += f", at {line['commit']}"
        found.setdefault(line["name"], {})[device] = cell
    devices = sorted({device for own in found.values() for device in own})
    rows = [["program", *devices], ["---", *["---:"] * len(devices)]]
    rows += [[name, *(own.get(d, "") for d in devices)] for name, own in found.items()]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = [f"{number}. {told}" for number, told in enumerate(wrong, 1)]
    return "\n\n".join([text, "\n".join(notes)]) if notes else text


if __name__ == "__main__":
    texts = [Path(file).read_text() for file in sys.argv[1:]]
    print(page([json.loads(line) for text in texts for line in text.splitlines()]))
