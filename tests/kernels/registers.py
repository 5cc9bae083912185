"""Registers and spills of the kernels for GPUs, as an absent H100's compiler has them.

    PYTHONPATH=.:kernels:tests:tests/kernels python tests/kernels/registers.py

XLA compiles each kernel and leaves its PTX behind, of which ``ptxas`` (of the package
nvidia-cuda-nvcc-cu12) says what a thread takes. A line of JSON for each: registers of a
thread (255 at most), bytes that are spilled to memory and read again, and how many
instructions multiply matrices. Needs what ``absent.py`` needs.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import absent

PROPERTIES = {
    "registers": r"Used (\d+) registers",
    "stored": r"(\d+) bytes spill stores",
    "loaded": r"(\d+) bytes spill loads",
}
MULTIPLIED = re.compile(r"\b(wgmma\.mma_async|mma\.sync)")


class Call(NamedTuple):
    """Description: one kernel on operands that fill its tiles."""

    kernel: str
    dtype: str
    precision: str
    function: Callable[..., Any]
    shapes: list[Any]


def calls() -> Iterator[Call]:
    """float32 in full and as fast as the device is; half precision has one way."""
    import jax

    from unlearn_kernels.fisher_diagonal import square_sum
    from unlearn_kernels.sign_projection import project_signs
    from unlearn_kernels.squared_norm import squared_norm

    like, form = jax.ShapeDtypeStruct, {"implementation": "triton"}
    seeds, places = like((2,), "uint32"), like((2**16,), "uint32")
    for dtype, precision in (
        ("float32", "full"),
        ("float32", "fast"),
        ("bfloat16", "full"),
    ):
        kind = dtype, precision
        inputs, slopes = (like((32, 1, 64, size), dtype) for size in (256, 512))
        rows = [inputs, slopes, like((32,), dtype)]
        yield Call("square_sum", *kind, partial(square_sum, **form), rows)
        yield Call("squared_norm", *kind, partial(squared_norm, **form), rows[:2])
        if precision == "full":
            signs = partial(project_signs, width=2048, **form)
            values = like((64, *places.shape), dtype)
            yield Call("project_signs", *kind, signs, [seeds, values, places])


def assembler() -> str:
    """The one that belongs to the compiler."""
    import nvidia

    (root,) = nvidia.__path__
    return str(Path(root) / "cuda_nvcc" / "bin" / "ptxas")


def used(call: Call, ptx: Path) -> dict[str, Any] | None:
    """What a thread of the kernel takes; None for a file of something else."""
    text = ptx.read_text()
    if not re.search(rf"\.entry {call.kernel}\(", text):
        return None
    ended = subprocess.run(
        [assembler(), "-v", "-arch=sm_90a", str(ptx), "-o", os.devnull],
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(f"ptxas ended with {ended.returncode}: {ended.stderr}")
    line: dict[str, Any] = call._asdict() | {"products": len(MULTIPLIED.findall(text))}
    del line["function"], line["shapes"]
    for name, pattern in PROPERTIES.items():
        (value,) = re.findall(pattern, ended.stderr)
        line[name] = int(value)
    return line


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ |= absent.environment("H100")
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={name}"
        import jax

        jax.config.update("jax_platforms", "cpu")
        from unlearn_kernels.precision import summing
        from unlearn_kernels.target import targeting

        devices, folder = absent.devices_of("H100", 1), Path(name)
        lie = jax.sharding.SingleDeviceSharding(devices[0])
        for call in calls():
            for old in folder.iterdir():
                old.unlink()
            placed = absent.laid(call.shapes, devices)
            with targeting("cuda"), summing(call.precision):
                whole = jax.jit(call.function, out_shardings=lie).trace(*placed)
                whole.lower(lowering_platforms=("cuda",)).compile()
            found = [used(call, ptx) for ptx in sorted(folder.glob("*.ptx"))]
            (line,) = filter(None, found)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
