import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from asserts import assert_trees_close
from compiling import FORGIVING, flags
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from unlearn_jax.parallel.mesh import (
    explicit_axes,
    member_mesh,
    replicate,
    shard_members,
    varying_axes,
)

SCRIPT = Path(__file__).with_name("eight_devices.py")


def test_the_mesh_has_one_automatic_axis_called_member():
    mesh = member_mesh()
    assert mesh.axis_names == ("member",)
    assert mesh.axis_types == (AxisType.Auto,)
    assert mesh.size == len(jax.devices())


@pytest.mark.parametrize("devices", [0, -1, 4096])
def test_more_devices_than_there_are_or_none_are_refused(devices):
    with pytest.raises(ValueError, match=f"mesh of {devices} devices where"):
        member_mesh(devices)


def test_laying_out_keeps_every_value():
    values = {"a": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3)}
    mesh = member_mesh(1)
    assert_trees_close(shard_members(mesh, values), values, rtol=0)
    assert_trees_close(replicate(mesh, values), values, rtol=0)


def test_eight_devices_train_the_ensemble_of_one_without_a_word_between_them():
    root = SCRIPT.parents[2]
    paths = [root, root / "kernels", root / "tests"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *FORGIVING, str(SCRIPT)],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "XLA_FLAGS": flags("--xla_force_host_platform_device_count=8"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "eight devices agree" in done.stdout


def test_types_say_over_which_axes_an_array_varies_or_is_split():
    mesh = member_mesh(1)
    explicit = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    ones, spec = jnp.ones((2, 3)), PartitionSpec("member")
    found = []

    def note(values):
        found.append(varying_axes({"a": ones, "b": jax.vmap(jnp.sin)(values)}))
        return values

    for check in (True, False):
        jax.shard_map(note, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check)(
            ones
        )
    assert found == [("member",), ()]
    assert varying_axes((ones, 1.0, "name")) == ()

    rows = PartitionSpec(None, "rows")
    split = jax.device_put(ones, NamedSharding(explicit, rows))
    assert explicit_axes({"a": ones, "b": split}) == ("rows",)
    assert explicit_axes((ones, shard_members(mesh, ones), 1.0, "name")) == ()
