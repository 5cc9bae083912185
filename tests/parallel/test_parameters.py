from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import run_on_devices
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

from unlearn_jax.parallel.mesh import shard_members
from unlearn_jax.parallel.parameters import model_mesh, parameter_shardings, shard_rows

SCRIPT = Path(__file__).with_name("eight_sharded.py")
MESH = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((16, 24), (None, ("data", "model"))),  # the larger axis
        ((24, 16), (("data", "model"),)),
        ((16, 16), (("data", "model"),)),  # the first of two
        ((3, 16, 30), (None, ("data", "model"))),  # the largest that divides
        ((12, 6), (("data",),)),  # by the larger axis of the mesh
        ((6, 9), (("model",),)),
        ((2, 4), ()),  # small
    ],
)
def test_the_largest_axis_that_divides_is_split(shape, spec):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    found = parameter_shardings(MESH, {"a": leaf}, small=8)["a"]
    assert found.spec == PartitionSpec(*spec)
    divided = found.shard_shape(shape)
    assert all(whole % part == 0 for whole, part in zip(shape, divided, strict=True))


def test_what_does_not_divide_is_refused():
    odd = {"w": jax.ShapeDtypeStruct((7, 9), jnp.float32)}
    with pytest.raises(ValueError, match=r"no axis of \['w'\], shape \(7, 9\)"):
        parameter_shardings(MESH, odd, small=8)
    assert parameter_shardings(MESH, odd, small=63)["w"].spec == PartitionSpec()
    with pytest.raises(ValueError, match="1 devices do not divide over a model axis"):
        model_mesh(model=2, devices=1)
    with pytest.raises(ValueError, match="mesh of 4096 devices where"):
        model_mesh(model=2, devices=4096)
    several = np.array(jax.devices() * 4)[:4]
    rows = Mesh(several, ("data",))
    with pytest.raises(ValueError, match=r"7 examples .* the 4 .* weight zero .* 8"):
        shard_rows(rows, {"x": jnp.zeros((7, 2))})
    with pytest.raises(ValueError, match="7 members do not divide over 4 devices"):
        shard_members(Mesh(several, ("member",)), {"x": jnp.zeros((7, 2))})


def test_one_device_needs_no_splitting():
    mesh = model_mesh(model=1, devices=1)
    assert mesh.axis_names == ("data", "model")
    leaf = jax.ShapeDtypeStruct((7, 9), jnp.float32)
    assert parameter_shardings(mesh, leaf, small=8).spec == PartitionSpec()


@pytest.mark.slow
def test_parameters_over_eight_devices_give_the_numbers_of_one(tmp_path):
    saved = str(tmp_path / "saved")
    told = run_on_devices(8, SCRIPT, saved, timeout=600)
    assert "eight sharded agree" in told
