"""Sums over a mesh equal those of one device."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from devices import run_on_devices
from jax.sharding import AxisType

from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.parallel.mesh import data_mesh, member_mesh, sum_over_data

SCRIPT = Path(__file__).with_name("eight_parts.py")


def weighted_sum(batch):
    return jnp.sum(batch.weights * batch.inputs)


def test_the_mesh_has_one_automatic_axis_called_data():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert mesh.axis_types == (AxisType.Auto,)
    with pytest.raises(ValueError, match="mesh of 4096 devices where"):
        data_mesh(4096)


def test_a_mesh_of_one_changes_nothing():
    data = from_arrays(np.arange(5.0), np.zeros(5), np.array([1.0, 0, 2, 3, 1]))
    meshed = jax.jit(lambda d: accumulate(weighted_sum, d, mesh=data_mesh(1)))(data)
    assert_trees_close(meshed, jnp.asarray(17.0), rtol=1e-14)


def test_what_a_mesh_cannot_do_is_refused():
    data = from_arrays(np.arange(5.0), np.zeros(5))
    with pytest.raises(ValueError, match="loop='host' and a mesh"):
        accumulate(weighted_sum, data, mesh=data_mesh(1), loop="host")
    with pytest.raises(ValueError, match=r"\('member',\), expected \('data',\)"):
        accumulate(weighted_sum, data, mesh=member_mesh(1))
    empty = from_arrays(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="got 0 examples"):
        accumulate(weighted_sum, empty, mesh=data_mesh(1))


def test_constants_reach_every_part_whole():
    values, factor = jnp.arange(4.0), jnp.array([2.0, 3.0])
    found = sum_over_data(data_mesh(1), lambda x, f: jnp.sum(x) * f, values, factor)
    assert_trees_close(found, 6 * factor, rtol=0)


def test_eight_devices_add_up_to_the_sum_of_one():
    told = run_on_devices(8, SCRIPT, options=("-W", "error"))
    assert "eight parts agree" in told
