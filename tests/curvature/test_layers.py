"""Layers are numbered as inputs pass them, whatever their names, wherever cast."""

import jax
import jax.numpy as jnp
import tiny

from unlearn_jax import tree
from unlearn_jax.curvature.layers import layers_of
from unlearn_jax.types import Variables


def numbers(apply, variables, inputs):
    leaves = jax.tree_util.tree_leaves_with_path(layers_of(apply, variables, inputs))
    return {tree.path_names(path): number for path, number in leaves}


def test_names_do_not_matter_and_norms_belong_to_the_kernel_before_them():
    model = tiny.learner("norm").model
    variables = jax.eval_shape(model.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((4, tiny.FEATURES), jnp.float64)
    places = {("stem",): 0, ("stages", 0): 1, ("stages", 1): 2, ("head",): 3}
    found = numbers(model.apply, variables, inputs)
    assert len(found) == 16
    for path, number in found.items():
        start = path[1:3] if path[1] == "stages" else path[1:2]
        assert number == places[start], path


def test_casts_calls_scans_and_idle_leaves():
    def apply(variables, inputs):
        params = jax.tree.map(lambda p: p.astype(jnp.float32), variables.params)
        mean = jax.lax.stop_gradient(variables.stats["mean"])
        values = (inputs - mean[None]) @ params["z"]
        rows = (params["many"], params["shifts"])
        step = jax.jit(lambda v, row: (jnp.tanh(v @ row[0] + row[1][None]), None))
        values, _ = jax.lax.scan(step, values, rows)
        return jax.jit(lambda v, w: v @ w["a"] + w["b"][None])(values, params)

    shape = jnp.zeros
    params = {"a": shape((3, 2)), "b": shape(2), "idle": shape((2, 2))}
    params |= {"many": shape((5, 3, 3)), "shifts": shape((5, 3)), "z": shape((4, 3))}
    found = layers_of(apply, Variables(params, {"mean": shape(4)}), shape((6, 4)))
    expected = {"a": 2, "b": 2, "idle": -1, "many": 1, "shifts": 1, "z": 0}
    assert found == Variables(expected, {"mean": 0})
