"""Compile programs for devices that this machine does not have.

    export PYTHONPATH=.:kernels:tests:tests/kernels
    python tests/kernels/absent.py v5e [--words EK-FAC ridge ...] [--double]
        [--large [--over 8 [--model 2]]] [--known LINES ...] [--seconds 120]

Prints a line of JSON for each program whose name begins with one of the words: seconds,
bytes by the compiler's account, or what went wrong; ``absent_table.py`` makes a page of
such lines. ``--large``: curvature at sizes worth a table. ``--over 8``: for a mesh,
examples over its axis of data, everything else as ``parameter_shardings`` lays
parameters; bytes are those of one device. ``--known``: what has a line in these files
is left out: a list can be made in portions (``--known h100 >> h100``). ``--seconds``:
of processor time, then a line says that a program took longer and the next one follows.
The compilers need neither device nor driver, and belong to the JAX that runs; for
0.10.2:

    pip install "libtpu==0.0.42.*"
    pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 \
        nvidia-cuda-nvcc-cu12==12.9.86
"""

import argparse
import json
import os
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from portions import known_names, limited

DEVICES = {"v5e": "tpu", "v6e": "tpu", "H100": "cuda"}
NEEDS = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}
H100 = """
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What its compiler asks of a device, as XLA writes it down where there is one."""
NO_TILES = "Couldn't find output tile sizes that satisfy"
"""XLA's fault where it makes a product by Triton whose rows are the columns, three or
ten, of many matrices; such a program is compiled with products by cuBLAS."""


def missing(device: str) -> str | None:
    """The package that compiling for a device needs and this environment lacks."""
    package = NEEDS[DEVICES[device]]
    return package if find_spec(package) is None else None


def environment(device: str) -> dict[str, str]:
    """What must be set before JAX is imported: nothing here looks for a device."""
    told = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    if DEVICES[device] == "tpu":
        told |= {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-4",
            "TPU_WORKER_HOSTNAMES": "localhost",
        }
    return told


def devices_of(device: str, count: int) -> list[Any]:
    """So many of them, described."""
    from jax.experimental import topologies

    if DEVICES[device] == "tpu":
        shape = "2x2" if count <= 4 else "2x4"
        found = topologies.get_topology_desc(f"{device}:{shape}", platform="tpu")
    else:
        found = topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{count}", target_config=H100
        )
    return list(found.devices[:count])


def mesh_of(devices: list[Any], model: int) -> Any:
    """So many devices for each part of the data; of one device none."""
    from jax.sharding import AxisType, Mesh

    if len(devices) == 1:
        return None
    automatic = (AxisType.Auto,) * 2
    grid = np.array(devices).reshape(-1, model)
    return Mesh(grid, ("data", "model"), axis_types=automatic)


def laid(shapes: Any, devices: list[Any], mesh: Any = None) -> Any:
    """Shapes on the first device; or examples over a mesh's data, the rest split."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from unlearn_jax.parallel.parameters import parameter_shardings
    from unlearn_jax.types import Batch

    def on(shape: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    if mesh is None:
        alone = jax.sharding.SingleDeviceSharding(devices[0])
        return jax.tree.map(lambda shape: on(shape, alone), shapes)
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def value(one: Any) -> Any:
        if isinstance(one, Batch):
            return jax.tree.map(lambda shape: on(shape, rows), one)
        return jax.tree.map(on, one, parameter_shardings(mesh, one))

    return jax.tree.map(value, shapes, is_leaf=lambda one: isinstance(one, Batch))


def compiled(
    program: Any, devices: list[Any], platform: str, mesh: Any
) -> dict[str, Any]:
    """Processor time of compiling a program, and the bytes that a device would hold."""
    import jax

    from unlearn_kernels.target import targeting

    with targeting(platform):
        function, shapes = program.make()
        placed = laid(shapes, devices, mesh)
        results = laid(jax.eval_shape(function, *shapes), devices, mesh)
        lie = jax.tree.map(lambda result: result.sharding, results)
        whole = jax.jit(function, out_shardings=lie)
        lowered = whole.trace(*placed).lower(lowering_platforms=(platform,))
    start = time.process_time()
    told = {}
    try:
        memory = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if NO_TILES not in str(error):
            raise
        told = {"cublas": True}
        options = {"xla_gpu_enable_triton_gemm": False}
        memory = lowered.compile(compiler_options=options).memory_analysis()
    return told | {
        "seconds": round(time.process_time() - start, 1),
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "scratch": memory.temp_size_in_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("device", choices=DEVICES)
    parser.add_argument("--words", nargs="*", help="how their names begin; else all")
    parser.add_argument("--double", action="store_true", help="in float64")
    parser.add_argument("--over", type=int, default=1, choices=(1, 8), help="devices")
    parser.add_argument("--model", type=int, default=2, choices=(2, 4, 8), help="axis")
    parser.add_argument("--large", action="store_true", help="sizes worth a table")
    parser.add_argument("--known", nargs="*", type=Path, default=[], help="of lines")
    parser.add_argument("--seconds", type=float, help="of processor time, a program")
    parser.add_argument("--after", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.over > 1 and not asked.large:
        parser.error("--over splits the large programs; give --large too")
    os.environ |= environment(asked.device)
    warnings.simplefilter("ignore")
    import jax

    jax.config.update("jax_enable_x64", asked.double)
    jax.config.update("jax_platforms", "cpu")
    import programs

    devices, platform = devices_of(asked.device, asked.over), DEVICES[asked.device]
    kinds = {"device": asked.device, "double": asked.double, "large": asked.large}
    mesh, told = None, programs.programs(programs.small_nets())
    if asked.large:
        mesh = mesh_of(devices, asked.model)
        told = programs.large_programs(mesh)
    kinds["mesh"] = None if mesh is None else list(mesh.devices.shape)
    words = tuple(asked.words or [""])
    known = known_names(asked.known, kinds)
    if asked.after is not None:
        names = [program.name for program in told]
        told = told[names.index(asked.after) + 1 :]
    for program in told:
        if program.name in known or not program.name.startswith(words):
            continue
        if asked.double and not program.double:
            continue
        line = {"name": program.name} | kinds
        try:
            with limited(asked.seconds, line):
                line |= compiled(program, devices, platform, mesh)
        except Exception as error:  # told, and the next one is compiled
            line |= {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(line), flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
