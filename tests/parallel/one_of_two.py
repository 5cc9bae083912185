"""Run by test_processes.py, once for each of several processes."""

import os
import signal
import sys

import jax
import numpy as np
from problems import two_layer

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.parallel.mesh import data_mesh, replicate
from unlearn_jax.parallel.parameters import shard_rows
from unlearn_jax.parallel.processes import joined, whole
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind


def numbers(mesh):
    """A diagonal, a solve and a trained model, with the data split over the mesh."""
    learner, data = two_layer()
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[:16], data)
    variables = learner.model.init(jax.random.key(0))
    objective = bind(learner.model, variables.stats, learner.loss, 0.1)

    def run(params, data):
        options = {"batch_size": 4, "mesh": mesh}
        matrix = damped(
            over_batches(gauss_newton, objective, params, data, **options), 1
        )
        trained = fit(jax.random.key(1), learner, data)
        diagonal = empirical_fisher_diagonal(objective, params, data, **options)
        return diagonal, conjugate_gradient(damped(matrix, 1.0), params).value, trained

    given = replicate(mesh, variables.params), shard_rows(mesh, data)
    return jax.tree.map(np.asarray, whole(mesh, jax.jit(run)(*given)))


def main(path, dies):
    jax.config.update("jax_enable_x64", True)
    with joined() as links:
        devices = len(jax.devices())
        assert devices == (links.count if links.count > 1 else devices)
        mesh = data_mesh()
        found = numbers(mesh)
        if links.index == 0:
            leaves = jax.tree.leaves(found)
            np.savez(path, **{str(i): leaf for i, leaf in enumerate(leaves)})
        print("numbers are there", flush=True)
        if not dies:
            return
        if links.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            numbers(mesh)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "dies")
