from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from asserts import assert_trees_close
from devices import run_on_devices
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.parallel.mesh import member_mesh, replicate, shard_members
from unlearn_jax.placement import agreed, explicit_mesh
from unlearn_kernels.varying import vary, varying_axes

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
    told = run_on_devices(8, SCRIPT, options=("-W", "error"))
    assert "eight devices agree" in told


def test_types_say_over_which_axes_an_array_varies_or_is_split():
    mesh = member_mesh(1)
    explicit = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    ones, spec = jnp.ones((2, 3)), PartitionSpec("member")
    found = []

    def note(values):
        mapped = jax.vmap(jnp.sin)(values)
        tree = {"a": ones, "b": mapped, "c": jax.ShapeDtypeStruct((2,), int), "d": 1.0}
        alike = vary(tree, values)
        found.append((varying_axes(tree), [*map(varying_axes, alike.values())]))
        same = agreed(jnp.isfinite(alike["a"]), varying_axes(alike["a"]))
        assert same.dtype == bool
        assert varying_axes(same) == ()
        return values

    for check in (True, False):
        jax.shard_map(note, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check)(
            ones
        )
    assert found == [(("member",), [("member",)] * 4), ((), [()] * 4)]
    assert varying_axes((ones, 1.0, "name")) == ()
    tree = {"a": ones}
    assert vary(tree, ones) is tree

    split = jax.device_put(ones, NamedSharding(explicit, PartitionSpec(None, "rows")))
    assert explicit_mesh({"a": ones, "b": split}).axis_names == ("rows",)
    assert explicit_mesh((ones, shard_members(mesh, ones), 1.0, "name")) is None


def test_explicit_axes_are_automatic_inside_and_functions_that_come_out_too():
    """What explicit axes refuse: a product over the axis that is split."""
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    rows = jnp.arange(6.0).reshape(3, 2)
    held = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("rows")))

    @automatic
    def moment(rows, name="moment"):
        total = jnp.einsum("ni,nj->ij", rows, rows)
        return total, name, lambda vector: total @ vector[jnp.argsort(vector)]

    def both(rows):
        total, name, product = moment(rows)
        assert name == "moment"
        return total, product(rows[0])

    expected = (rows.T @ rows, rows.T @ rows @ rows[0])
    with pytest.raises(Exception, match="ambiguous"):
        jnp.einsum("ni,nj->ij", held, held)
    for run in (both, jax.jit(both)):
        assert_trees_close(run(held), expected, rtol=1e-14)
        with jax.set_mesh(mesh):
            assert_trees_close(run(held), expected, rtol=1e-14)
    assert explicit_mesh(both(held)[0]) == mesh.abstract_mesh


@pytest.mark.slow
def test_curvature_solvers_and_training_do_not_mind_how_types_say_data_lie():
    script = SCRIPT.with_name("two_placements.py")
    assert "placements agree" in run_on_devices(2, script, timeout=900)
