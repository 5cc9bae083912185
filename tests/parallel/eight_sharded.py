"""Run by test_parameters.py in a process of its own: parameters over eight devices."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from asserts import assert_trees_close

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.operator import damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.models import mlp
from unlearn_jax.parallel.parameters import model_mesh, parameter_shardings, shard_rows
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train import checkpoint
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe

ROWS, INPUTS, WIDTH, CLASSES = 32, 16, 24, 8
WORDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)


def problem():
    model = mlp(
        (INPUTS,), CLASSES, widths=(WIDTH,), activation=jnp.tanh, dtype=jnp.float64
    )
    variables = model.init(jax.random.key(0))
    variables = jax.tree.map(lambda leaf: leaf + 0.01, variables)
    rows = np.random.default_rng(0).standard_normal((ROWS, INPUTS))
    data = from_arrays(jnp.asarray(rows), jnp.arange(ROWS) % CLASSES)
    return model, variables, data


def functions(model, variables, mesh):
    objective = bind(model, variables.stats, cross_entropy, 0.1)
    recipe = Recipe(epochs=2, batch_size=8, weight_decay=0.0)
    learner = Learner(model, cross_entropy, 0.0, recipe)

    def diagonal(params, data):
        return empirical_fisher_diagonal(
            objective, params, data, batch_size=4, mesh=mesh
        )

    def solved(params, data):
        whole = over_batches(
            gauss_newton, objective, params, data, batch_size=4, mesh=mesh
        )
        return conjugate_gradient(damped(whole, 0.1), params).value

    def kronecker(params, data):
        state = ekfac(None, objective, params, data, mesh=mesh)
        return kronecker_inverse(state, damping=0.1)(params)

    def trained(params, data):
        start = variables._replace(params=params)
        return fit(jax.random.key(1), learner, data, start=start).params

    return (
        {"fit": trained}
        if mesh is None
        else {"diagonal": diagonal, "cg": solved, "ekfac": kronecker}
    )


def collectives(text):
    """How many of each there are, and the numbers in the largest result of one."""
    counts, largest = dict.fromkeys(WORDS, 0), 0
    for line in text.splitlines():
        for word in WORDS:
            if found := re.search(rf"= (.*) {word}(-start)?\(", line):
                counts[word] += 1
                for sizes in re.findall(r"\[([\d,]*)\]", found[1]):
                    numbers = [int(size) for size in sizes.split(",") if size]
                    largest = max(largest, int(np.prod(numbers)))
    return counts, largest


def check_checkpoint(folder, mesh, params, shardings):
    """Written from eight devices; read by eight in another order, and by one."""
    checkpoint.save(folder, jax.device_put(params, shardings))
    other = parameter_shardings(model_mesh(model=4, devices=4), params, small=8)

    def like(leaf, sharding=None):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    split = checkpoint.load(folder, jax.tree.map(like, params, other))
    assert jax.tree.map(lambda leaf: leaf.sharding, split) == other
    assert_trees_close(split, params, rtol=0)
    single = checkpoint.load(folder, jax.tree.map(like, params))
    assert_trees_close(single, params, rtol=0)


def main(folder):
    jax.config.update("jax_enable_x64", True)
    mesh = model_mesh(model=2)
    assert mesh.shape == {"data": 4, "model": 2}
    model, variables, data = problem()
    params = variables.params
    shardings = parameter_shardings(mesh, params, small=CLASSES)
    kernel = params["hidden"][0]["kernel"]
    split = jax.device_put(params, shardings)
    parts = split["hidden"][0]["kernel"].addressable_shards
    assert {part.data.shape for part in parts} == {(INPUTS, WIDTH // 8)}
    rows = shard_rows(mesh, data)

    for where in (None, mesh):
        alone = functions(
            model, variables, None if where is None else model_mesh(model=1, devices=1)
        )
        for name, function in functions(model, variables, where).items():
            expected = jax.jit(alone[name])(params, data)
            run = jax.jit(function, out_shardings=shardings)
            program = run.lower(split, rows).compile()
            found = program(split, rows)
            assert_trees_close(found, expected, rtol=1e-9, atol=1e-12)
            assert jax.tree.map(lambda leaf: leaf.sharding, found) == shardings
            counts, largest = collectives(program.as_text())
            print(name, counts, "largest", largest)
            assert counts["all-reduce"] > 0
            # A weight, a factor or all inputs are sent; no gradient of each example.
            assert largest <= max(kernel.size, WIDTH * WIDTH, ROWS * INPUTS)
            assert largest < ROWS // 4 * kernel.size

    # The search would notice gradients of all examples, gathered.
    def formed(params, data):
        return jnp.einsum("ni,no->nio", data.inputs, data.inputs @ params)

    outer = jax.jit(formed, out_shardings=jax.tree.leaves(replicated(mesh))[0])
    text = outer.lower(split["hidden"][0]["kernel"], rows).compile().as_text()
    assert collectives(text)[1] >= ROWS * kernel.size
    check_checkpoint(folder, mesh, params, shardings)


def replicated(mesh):
    return parameter_shardings(mesh, [jax.ShapeDtypeStruct((1,), float)])


if __name__ == "__main__":
    main(sys.argv[1])
    print("eight sharded agree")
