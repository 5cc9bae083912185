"""Run by test_data_mesh.py in a process of its own: eight simulated devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import two_layer

from unlearn_jax.curvature.contractions import squared_norms
from unlearn_jax.curvature.diagonal import (
    empirical_fisher_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.operator import damped, linear_operator
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.parallel.mesh import data_mesh
from unlearn_jax.parallel.parameters import model_mesh, parameter_shardings, shard_rows
from unlearn_jax.placement import explicit_mesh
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective, bind


def moments(batch, scale):
    weighted = batch.weights[:, None] * batch.inputs
    return {
        "second": scale * weighted.T @ batch.inputs,
        "present": jnp.sum(batch.weights > 0),
    }


def both(mesh, batch_size):
    def sums(data, scale):
        return tuple(
            accumulate(moments, data, scale, batch_size=batch_size, mesh=m)
            for m in (None, mesh)
        )

    return sums


def main():
    jax.config.update("jax_enable_x64", True)
    mesh = data_mesh()
    assert mesh.shape == {"data": 8}
    random = np.random.default_rng(0)
    for n in (3, 8, 19):  # fewer than devices, as many, not a multiple
        weights = random.integers(0, 3, n) * 1.0
        data = from_arrays(random.standard_normal((n, 4)), np.zeros(n), weights)
        program = jax.jit(both(mesh, 2))
        alone, meshed = program(data, 1.5)
        assert_trees_close(meshed, alone, rtol=1e-12, atol=1e-13)
        assert int(meshed["present"]) == np.count_nonzero(weights)

    # Data that lie on the mesh stay where they are: only the sums are sent.
    spread = jax.tree.map(lambda leaf: jnp.asarray(leaf[:16]), data)
    spread = jax.device_put(spread, NamedSharding(mesh, PartitionSpec("data")))
    meshed = jax.jit(lambda d, s: accumulate(moments, d, s, batch_size=2, mesh=mesh))
    text = meshed.lower(spread, 1.5).compile().as_text()
    assert "all-reduce" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "permute"))

    # Derivatives and maps pass through the split.
    def seconds(scale, data):
        return [sums["second"] for sums in both(mesh, 2)(data, scale)]

    for derivative in (jax.jacfwd, jax.jacrev):
        alone, meshed = jax.jit(derivative(seconds))(1.5, data)
        assert_trees_close(meshed, alone, rtol=1e-12, atol=1e-13)
    scales = jnp.array([1.0, -2.0])
    many = jax.jit(jax.vmap(both(mesh, 2), (None, 0)))(data, scales)
    assert_trees_close(many[1], many[0], rtol=1e-12, atol=1e-13)

    # A curvature operator, each device with its own part and some of it NaN.
    learner, data = two_layer()
    init = learner.model.init(jax.random.key(0))
    objective = bind(learner.model, init.stats, learner.loss, learner.l2)
    weights = np.asarray(data.weights).copy()
    weights[[0, 5, 17]] = 0
    inputs = np.asarray(data.inputs).copy()
    inputs[weights == 0] = np.nan
    data = data._replace(inputs=jnp.asarray(inputs), weights=jnp.asarray(weights))

    def products(params, data, vector):
        parts = over_batches(
            gauss_newton, objective, params, data, batch_size=2, mesh=mesh
        )
        return parts(vector), gauss_newton(objective, params, data)(vector)

    vector = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), init)
    meshed, whole = jax.jit(products)(init.params, data, vector.params)
    assert_trees_close(meshed, whole, rtol=1e-12, atol=1e-13)

    # Diagonals: sums over parts; drawn labels belong to examples, not to devices.
    def diagonals(params, data, mesh):
        key = jax.random.key(3)
        return (
            empirical_fisher_diagonal(objective, params, data, mesh=mesh),
            sampled_fisher_diagonal(key, objective, params, data, mesh=mesh),
        )

    run = jax.jit(diagonals, static_argnums=2)
    meshed, alone = (run(init.params, data, m) for m in (mesh, None))
    assert_trees_close(meshed, alone, rtol=1e-12, atol=1e-13)
    check_placed(mesh)
    check_parameters()


def check_placed(mesh):
    """Types that say where parts lie change no number: varying parts, explicit axes."""
    random = np.random.default_rng(1)
    data = from_arrays(random.standard_normal((16, 4)), np.arange(16) % 3)
    params = {"w": jnp.asarray(random.standard_normal((4, 3)))}
    objective = Objective(lambda p, x: x @ p["w"], cross_entropy)

    def kronecker(params, data):
        return kfac(None, objective, params, data, batch_size=2).blocks

    def diagonal(params, data):
        return empirical_fisher_diagonal(objective, params, data, batch_size=2)

    def product(params, data):
        return over_batches(gauss_newton, objective, params, data, batch_size=1)(params)

    def solved(params, data):
        operator = damped(gauss_newton(objective, params, data), 0.1)
        whole = linear_operator(lambda v: mean(operator(v)), params)
        return conjugate_gradient(whole, params).value

    def mean(found):
        try:
            return jax.lax.pmean(found, "data")
        except NameError:  # outside of shard_map
            return found

    explicit = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    held = jax.device_put(data, NamedSharding(explicit, PartitionSpec("rows")))
    assert explicit_mesh(held) is not None

    def split(function, check):
        return jax.jit(
            jax.shard_map(
                lambda p, d: mean(function(p, d)),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
                check_vma=check,
            )
        )

    for function in (diagonal, kronecker, product, solved):
        expected = jax.jit(function)(params, data)
        for found in (
            split(function, False)(params, data),
            split(function, True)(params, data),
            jax.jit(function)(params, held),
        ):
            assert_trees_close(found, expected, rtol=1e-12)
    assert_trees_close(product(params, held), product(params, data), rtol=1e-12)

    # A derivative by what does not vary is summed over the devices by JAX itself.
    def norms(params, data):
        return squared_norms(loss_gradients(objective, params, data)[1])

    apart = jax.shard_map(
        norms,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("data")),
        out_specs=PartitionSpec("data"),
    )
    expected = jax.jit(norms)(params, data)
    assert_trees_close(jax.jit(apart)(params, data), expected, rtol=1e-12)


def check_parameters():
    """Parameters split over both axes, examples over one: the same sums."""
    random = np.random.default_rng(2)
    data = from_arrays(random.standard_normal((16, 4)), np.arange(16) % 8)
    params = {"w": jnp.asarray(random.standard_normal((4, 8)))}
    objective = Objective(lambda p, x: x @ p["w"], cross_entropy)
    mesh = model_mesh(model=2)
    split = jax.device_put(params, parameter_shardings(mesh, params, small=8))
    assert split["w"].addressable_shards[0].data.shape == (4, 1)
    rows = shard_rows(mesh, data)
    with pytest.raises(ValueError, match=r"6 examples do not divide .* to 8"):
        shard_rows(mesh, jax.tree.map(lambda leaf: leaf[:6], data))

    def diagonal(params, data, mesh):
        return empirical_fisher_diagonal(
            objective, params, data, batch_size=2, mesh=mesh
        )

    run = jax.jit(diagonal, static_argnums=2)
    expected = run(params, data, None)
    assert_trees_close(run(split, rows, mesh), expected, rtol=1e-12)


if __name__ == "__main__":
    main()
    print("eight parts agree")
