"""A table of the bytes that programs hold on absent devices.

    python tests/kernels/absent_table.py LINES... > benchmarks/results/absent-devices.md

Each file holds lines that ``absent.py`` printed for one device.
"""

import json
import sys
from pathlib import Path


def table(files: list[str]) -> str:
    """Arguments, results and scratch together, in MiB, by program and device."""
    found: dict[str, dict[str, str]] = {}
    devices: list[str] = []
    for file in files:
        for line in map(json.loads, Path(file).read_text().splitlines()):
            held = sum(
                line.get(part, 0) for part in ("arguments", "results", "scratch")
            )
            cell = (
                line["error"].split("\n")[0]
                if "error" in line
                else f"{held / 2**20:.1f}"
            )
            found.setdefault(line["name"], {})[line["device"]] = cell
            if line["device"] not in devices:
                devices.append(line["device"])
    rows = [["program", *devices], ["---", *["---:"] * len(devices)]]
    rows += [[name, *(own.get(d, "") for d in devices)] for name, own in found.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table(sys.argv[1:]))
