"""Programs for GPUs that this machine does not have."""

import contextlib

import jax
from jax import export

from unlearn_kernels.target import targeting

NOT_CHECKED = (export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton"),)
"""JAX promises nothing about a kernel in an exported program; these are only read."""


def absent(kind):
    """A GPU of this kind for what is lowered; only JAX 0.12 asks which it will be."""
    try:
        from jax.sharding import AbstractDevice
    except ImportError:
        return contextlib.nullcontext()
    device = AbstractDevice(device_kind=kind, num_cores=None, platform="gpu")
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.AbstractMesh((1,), ("x",), kinds, abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


def lowered(function, *shapes, platform="cuda"):
    """The text of a program for "cuda" or "rocm"."""
    kind = {"cuda": "NVIDIA H100 80GB HBM3", "rocm": "gfx942"}[platform]
    with targeting(platform), absent(kind):
        program = export.export(
            jax.jit(function), platforms=[platform], disabled_checks=NOT_CHECKED
        )
        return program(*shapes).mlir_module()
