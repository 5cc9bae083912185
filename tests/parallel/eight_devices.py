"""Run by test_mesh.py in a process of its own, where eight devices are simulated."""

import jax
import jax.numpy as jnp
import numpy as np
from asserts import assert_trees_close
from problems import two_layer

from unlearn_jax import tree
from unlearn_jax.parallel.mesh import member_mesh, replicate, shard_members
from unlearn_jax.train.ensemble import fit_ensemble, member_program
from unlearn_jax.train.fit import fit

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective", "reduce-scatter")


def main():
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == 8
    mesh = member_mesh()
    assert mesh.shape == {"member": 8}
    assert member_mesh(2).size == 2

    rows = shard_members(mesh, jnp.arange(16.0).reshape(16, 1))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2, 1)}
    copies = replicate(mesh, jnp.arange(4.0))
    assert {shard.data.shape for shard in copies.addressable_shards} == {(4,)}
    assert len(copies.addressable_shards) == 8

    learner, data = two_layer()
    keys = jax.random.split(jax.random.key(0), 16)
    weights = np.random.default_rng(0).integers(0, 2, (16, 18)) * 1.0
    trained = fit_ensemble(keys, learner, data, weights, mesh=mesh, chunk=8)
    leaf = trained.params["head"]["bias"]
    assert leaf.shape == (16, 3)

    single = jax.jit(lambda k, w, d: fit(k, learner, d._replace(weights=w)))
    for i in (0, 9):
        expected = single(keys[i], weights[i], data)
        assert_trees_close(tree.member(trained, i), expected, rtol=1e-6, atol=1e-8)

    arguments = (*shard_members(mesh, (keys[:8], weights[:8])), replicate(mesh, data))
    program = member_program(learner, mesh).lower(*arguments).compile()
    found = [name for name in COLLECTIVES if name in program.as_text()]
    assert not found, found
    spread = jax.tree.leaves(program(*arguments))[0].sharding
    assert len(spread.device_set) == 8

    # The search would notice a collective.
    total = jax.jit(lambda x: x.sum()).lower(rows).compile().as_text()
    assert any(name in total for name in COLLECTIVES)


if __name__ == "__main__":
    main()
    print("eight devices agree")
