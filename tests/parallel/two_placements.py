"""Run by test_mesh.py in a process of its own: two simulated devices.

Every function on each half of some data, with arrays that ``shard_map`` knows to vary;
and on all of them, split over an explicit axis, traced and not, with a mesh in force
and without.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from asserts import assert_trees_close
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from problems import two_layer

from unlearn_jax import tree
from unlearn_jax.attribution.influence import influence_on_outputs
from unlearn_jax.curvature.contractions import dense, gram, squared_norms
from unlearn_jax.curvature.diagonal import (
    batch_gradient_moment,
    empirical_fisher_diagonal,
    fisher_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.fisher import empirical_fisher, fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.jacobian import tangent_kernel
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.operator import damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.curvature.stochastic_diagonal import hutchinson_diagonal
from unlearn_jax.data.batch import from_arrays
from unlearn_jax.parallel.mesh import data_mesh
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.krylov import lanczos
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import lissa, neumann
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.train.objective import Objective
from unlearn_kernels.varying import vary

ROWS, SPLIT, WHOLE = 16, PartitionSpec("data"), PartitionSpec()
KEY = jax.random.key(0)


def predict(params, inputs):
    """Tokens read, a recurrent layer whose weight is used twice, a head."""
    read = params["table"][jnp.argmax(inputs, axis=-1)]
    seen = jnp.tanh(inputs @ params["first"] + params["bias"][None, None] + read)

    def step(carry, row):
        return jnp.tanh(0.3 * carry @ (params["first"].T @ params["first"]) + row), None

    state, _ = jax.lax.scan(step, seen[:, 0], jnp.swapaxes(seen, 0, 1))
    return state @ params["head"]


def problem():
    random = np.random.default_rng(1)
    data = from_arrays(random.standard_normal((ROWS, 5, 4)), np.arange(ROWS) % 3)
    shapes = {"first": (4, 6), "bias": (6,), "head": (6, 3), "table": (7, 6)}
    params = {
        k: jnp.asarray(0.3 * random.standard_normal(s)) for k, s in shapes.items()
    }
    return jax.tree.map(jnp.asarray, (params, data))


def functions(params):
    objective = Objective(predict, cross_entropy, 0.1)
    vector = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params
    )
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.sin(leaf)]), vector)

    def product(build):
        return lambda p, d: build(objective, p, d)(vector)

    def solved(solver, rhs=vector, **options):
        return lambda p, d: (
            solver(damped(gauss_newton(objective, p, d), 0.1), rhs, **options).value
        )

    def norms(p, d):
        return squared_norms(loss_gradients(objective, p, d)[1])

    def pairs(p, d):
        return gram(*(loss_gradients(objective, p, d)[1],) * 2)

    def kronecker(p, d):
        state = ekfac(None, objective, p, d, batch_size=3)
        return kronecker_inverse(state, damping=0.1)(vector)

    def drawn_kronecker(p, d):
        return kfac(KEY, objective, p, d, labels="sampled", samples=2).blocks

    def slope(p, d):
        # Inside shard_map JAX sums derivatives by what does not vary.
        return jax.grad(lambda q: tree.dot(vector, solved(conjugate_gradient)(q, d)))(
            vary(p, d)
        )

    def influence(p, d):
        return influence_on_outputs(
            *(objective, p, d, jax.tree.map(lambda leaf: leaf[:2], d)),
            output_fn=None,
            inverse=lambda v: v,
        )

    def stochastic(p, d):
        def of(key):
            return damped(gauss_newton(objective, p, d), 0.1)

        return lissa(KEY, of, vector, step_size=0.5, steps=5, samples=2).value

    return {
        "empirical": partial(empirical_fisher_diagonal, objective, batch_size=3),
        "exact": partial(fisher_diagonal, objective),
        "sampled": partial(sampled_fisher_diagonal, KEY, objective),
        "moment": partial(batch_gradient_moment, objective, batch_size=4),
        "dense": lambda p, d: dense(*loss_gradients(objective, p, d)),
        "norms": norms,
        "gram": pairs,
        "kernel": lambda p, d: tangent_kernel(objective, p, d.inputs, trace=True),
        "kronecker": kronecker,
        "drawn": drawn_kronecker,
        "gauss_newton": product(gauss_newton),
        "hessian": product(hessian),
        "fisher": product(fisher),
        "empirical_fisher": product(empirical_fisher),
        "sampled_fisher": product(partial(sampled_fisher, KEY, samples=2)),
        "batches": product(partial(over_batches, gauss_newton, batch_size=3)),
        "hutchinson": lambda p, d: (
            hutchinson_diagonal(KEY, gauss_newton(objective, p, d), probes=3).value
        ),
        "cg": solved(conjugate_gradient),
        "block_cg": solved(block_conjugate_gradient, pair),
        "minres": solved(minres),
        "neumann": solved(neumann, max_steps=300),
        "lissa": stochastic,
        "lanczos": lambda p, d: (
            lanczos(KEY, gauss_newton(objective, p, d), rank=2).eigenvalues
        ),
        "slope": slope,
        "influence": influence,
    }


def check_varying(function, params, data):
    """Each device's own half, as that half alone on one device."""
    run = jax.jit(function)
    halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], data) for i in range(2)]
    expected = tree.stack([run(params, half) for half in halves])
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *halves)

    def own(params, part):
        return jax.tree.map(lambda leaf: leaf[None], function(params, part))

    split = jax.shard_map(
        own, mesh=data_mesh(2), in_specs=(WHOLE, SPLIT), out_specs=SPLIT
    )
    assert_trees_close(jax.jit(split)(params, joined), expected, rtol=1e-7, atol=1e-9)


def check_explicit(function, params, data, *, everywhere):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    held = jax.device_put(data, NamedSharding(mesh, SPLIT))
    expected = jax.jit(function)(params, data)
    for traced, told in ((True, False), (False, False), (True, True), (False, True)):
        if not everywhere and (told or not traced):
            continue
        run = jax.jit(function) if traced else function
        with jax.set_mesh(mesh) if told else contextlib.nullcontext():
            found = run(params, held)
        assert_trees_close(found, expected, rtol=1e-7, atol=1e-9)


def main():
    jax.config.update("jax_enable_x64", True)
    params, data = problem()
    for name, function in functions(params).items():
        print(name, flush=True)
        check_varying(function, params, data)
        everywhere = name in ("empirical", "sampled", "dense", "kronecker", "cg")
        check_explicit(function, params, data, everywhere=everywhere)

    learner, rows = two_layer()
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:ROWS], rows)

    def trained(_, data):
        return fit(KEY, learner, data)

    check_varying(trained, params, rows)
    check_explicit(trained, params, rows, everywhere=True)


if __name__ == "__main__":
    main()
    print("placements agree")
