"""Many training runs at once: one program over members, or one after another."""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from unlearn_jax import tree
from unlearn_jax.loop import tracing
from unlearn_jax.parallel.mesh import replicate, shard_members
from unlearn_jax.train.entrance import check_learnable, inside
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables
from unlearn_kernels.target import target_platform

Members: TypeAlias = Literal["auto", "vmap", "loop"]

# On CPU one program saves overhead and computes its products worse: up to this size it
# wins, and more members at once than CPU_CHUNK lose again; measured on idle cores by
# benchmarks/ensemble.py. Two processes with a core each win at every size.
CPU_VMAP_PARAMETERS = 60_000
CPU_CHUNK = 16


def fit_ensemble(
    keys: Array,
    learner: Learner,
    data: Batch,
    weights: Array | np.ndarray | None = None,
    *,
    members: Members = "auto",
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Variables:
    """Train one model per key, each on its own weights of the same data.

    Args:
        keys: (m,) random keys, one per member.
        learner: Model, loss, l2 and recipe, shared.
        data: Examples, shared and never copied per member.
        weights: (m, n) weights of the members; None gives ``data.weights`` to all.
        members: "vmap" for one program over members, "loop" for one program called m
            times, "auto" for the faster by :func:`choose_members`.
        chunk: Members per program under "vmap", at least 1. Bounds memory. None takes
            all; on CPU without a mesh 16, which is faster.
        mesh: Lay the members of a chunk over these devices ("vmap" only).

    Returns:
        Variables whose leaves have a first axis m; member i equals the single run
        ``fit(keys[i], learner, data with weights[i])`` up to rounding.

    Raises:
        ValueError: the weights do not fit keys and data, a chunk does not divide over
            the mesh, or data that ``fit`` refuses; nothing was trained.
    """
    count = keys.shape[0]
    if weights is None:
        weights = jnp.broadcast_to(data.weights, (count, *data.weights.shape))
    if weights.shape != (count, data.weights.shape[0]):
        raise ValueError(
            f"weights of shape {weights.shape} given for {count} keys and "
            f"{data.weights.shape[0]} examples; expected one row per key"
        )
    if not tracing(data, weights):
        rows = np.asarray(weights)
        check_learnable(learner, _seen_by_any(data, rows), name="training set")
    if members == "auto":
        members = "vmap" if mesh is not None else choose_members(learner, data)
    if members == "loop":
        return _one_after_another(keys, learner, data, weights)
    run = member_program(learner, mesh)
    if chunk is None and mesh is None and target_platform() == "cpu":
        chunk = CPU_CHUNK
    size = count if chunk is None else min(chunk, count)
    uneven = [s for s in (size, count % size) if mesh is not None and s % mesh.size]
    if mesh is not None and uneven:
        raise ValueError(
            f"{uneven[0]} members do not divide over {mesh.size} devices; choose a "
            f"chunk and a number of members that are multiples of {mesh.size}"
        )
    pieces = []
    for first in range(0, count, size):
        part = (keys[first : first + size], weights[first : first + size])
        shared = data
        if mesh is not None:
            part, shared = shard_members(mesh, part), replicate(mesh, data)
        pieces.append(run(*part, shared))
    if len(pieces) == 1:
        return pieces[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)


@functools.lru_cache(maxsize=32)
def member_program(learner: Learner, mesh: Mesh | None = None) -> Any:
    """The compiled function of one chunk: ``(keys, weights, data)`` to Variables.

    On a mesh each device runs the loop of its own members: they never wait for one
    another, and the program holds no collective.
    """
    run = jax.vmap(_one_member(learner), (0, 0, None))
    if mesh is not None:
        # Left to the partitioner, the loop's condition "is any member still training?"
        # becomes an all-reduce in every step.
        member = PartitionSpec("member")
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(member, member, PartitionSpec()),
            out_specs=member,
            check_vma=False,
        )
    return jax.jit(run)


def choose_members(learner: Learner, data: Batch) -> Members:
    """The faster way for this model on this device.

    Accelerators: "vmap". CPU: "vmap" for small models, whose steps are all overhead,
    else "loop"; always "loop" when the steps must run on the host.
    """
    if choose_fit_loop(learner, data) == "host":
        return "loop"
    if target_platform() != "cpu":
        return "vmap"
    params = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    return "vmap" if tree.size(params) <= CPU_VMAP_PARAMETERS else "loop"


def _seen_by_any(data: Batch, weights: np.ndarray) -> Batch:
    """The data with the largest weight that a member gives each; the least if < 0."""
    least = weights.min(axis=0)
    return data._replace(weights=np.where(least < 0, least, weights.max(axis=0)))


def _one_after_another(
    keys: Array, learner: Learner, data: Batch, weights: Array | np.ndarray
) -> Variables:
    on_host = choose_fit_loop(learner, data) == "host"
    run = _one_member(learner) if on_host else single_program(learner)
    with inside():
        models = [run(k, w, data) for k, w in zip(keys, weights, strict=True)]
    return tree.stack(models)


def _one_member(learner: Learner) -> Callable[..., Variables]:
    def run(key: Any, weights: Any, data: Batch) -> Variables:
        return fit(key, learner, data._replace(weights=weights))

    return run


@functools.lru_cache(maxsize=32)
def single_program(learner: Learner) -> Any:
    """The compiled function of one member: ``(key, weights, data)`` to Variables."""
    return jax.jit(_one_member(learner))
