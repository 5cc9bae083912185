"""Run by test_processes.py in each of two processes: checkpoints that both write."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.sharding import NamedSharding, PartitionSpec

from unlearn_jax.parallel.agreement import said_by_all, wrong_anywhere
from unlearn_jax.parallel.parameters import model_mesh, parameter_shardings
from unlearn_jax.parallel.processes import joined, whole
from unlearn_jax.train import checkpoint
from unlearn_jax.train.checkpoint import CheckpointError

TREE = {
    "kernel": np.arange(24.0).reshape(6, 4),
    "half": np.asarray([[0.5, 2.0], [3.0, -1.0]], jnp.bfloat16),
    "bias": np.asarray([1.0, -0.0, np.inf], np.float32),
    "steps": np.asarray(7, np.int32),
}


def like(shardings):
    return jax.tree.map(
        lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to),
        TREE,
        shardings,
    )


def keep(folder):
    """Write, read split alike, split otherwise, and with a part for each process."""
    mesh = model_mesh(model=1)
    shardings = parameter_shardings(mesh, TREE, small=3)
    assert shardings["kernel"].spec == PartitionSpec(("data", "model"))
    spread = jax.device_put(TREE, shardings)
    assert not spread["kernel"].is_fully_addressable
    # What lies in each process alone may stand beside it.
    spread["steps"] = jnp.asarray(7, jnp.int32)
    checkpoint.save(folder, spread)

    columns = dict(shardings, kernel=NamedSharding(mesh, PartitionSpec(None, "data")))
    own = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for told in (shardings, columns, dict(columns, bias=own, steps=own)):
        found = checkpoint.load(folder, like(told))
        assert jax.tree.map(lambda leaf: leaf.sharding, found) == told
        alone = {name: leaf.is_fully_addressable for name, leaf in found.items()}
        readable = {
            name: np.asarray(leaf if alone[name] else whole(mesh, leaf))
            for name, leaf in found.items()
        }
        assert_trees_close(readable, TREE, rtol=0)
    checkpoint.save(folder, jax.tree.map(lambda leaf: leaf + 1, spread))
    found = checkpoint.load(folder, like(shardings))
    assert_trees_close(whole(mesh, found)["kernel"], TREE["kernel"] + 1, rtol=0)
    return mesh, spread, shardings


def refuse(folder, index, mesh, spread, shardings):
    """What one process finds wrong every process tells, and the next one goes on."""
    full = folder.with_name("full")
    full.mkdir(exist_ok=True)
    (full / "other").write_text("x")
    said_by_all("")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint.save(full, spread)
    assert (full / "other").read_text() == "x"
    turned = like(shardings)
    turned["kernel"] = jax.ShapeDtypeStruct(
        (4, 6), float, sharding=spread["kernel"].sharding
    )
    with pytest.raises(CheckpointError, match="kernel"):
        checkpoint.load(folder, turned)
    broken = folder.with_name("broken")
    checkpoint.save(broken, spread)
    if index == 0:
        data = [path for path in broken.rglob("d/*") if path.is_file()]
        part = max(data, key=lambda path: path.stat().st_size)
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    said_by_all("")
    with pytest.raises(CheckpointError, match="another checksum"):
        checkpoint.load(broken, like(shardings))
    lost = KeyError("lost") if index == 1 else None
    told = "lost" if index == 1 else "in process 1: KeyError: 'lost'"
    with pytest.raises(KeyError if index == 1 else ValueError, match=told):
        wrong_anywhere(lost)
    assert said_by_all(f"number {index}") == ["number 0", "number 1"]


def main(folder):
    jax.config.update("jax_enable_x64", True)
    with joined() as links:
        refuse(folder, links.index, *keep(folder))
        print("checkpoints are there", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
