"""Models trained apart on shards, slice after slice: exact forgetting by construction.

Not in ``METHODS``, whose entries return one model's parameters: these are many models,
whose predictions are put together. The two kinds are made by :func:`sisa` and
:func:`stagewise`.
"""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from unlearn_jax.methods.shard_layout import ShardLayout
from unlearn_jax.methods.shard_rows import (
    check_numbers,
    check_rows,
    present,
    with_rows,
    without_rows,
)
from unlearn_jax.methods.shard_votes import together
from unlearn_jax.solvers.refusal import RefusedError
from unlearn_jax.storage.contents import Contents
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.storage.source import TRAINING, source_digest
from unlearn_jax.train.describe import describe_learner
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables


class ShardState(NamedTuple):
    """Value: all that decides the models.

    Attributes:
        rows: By row number, in numpy; weight 0 and zeros where a row is not there.
        spent: Slices (shard, slice) that stages may no longer be trained on, since a
            row of theirs was forgotten; in SISA none ever is.
    """

    rows: Batch
    spent: Bool[np.ndarray, "s l"]


class Served(NamedTuple):
    """Value: the models that answer.

    Attributes:
        variables: Stacked over shards; of a shard without a model, anything.
        votes: Rows behind each model, 0 where a shard has none.
        stages: Stages that each of them has gone through.
    """

    variables: Variables
    votes: Float[np.ndarray, " s"]
    stages: Int[np.ndarray, " s"]


class Plan(NamedTuple):
    """Description: how a kind of sharded model is trained.

    Attributes:
        learner: Trains each stage, from where the stage before ended.
        layout: Where every row number lies.
        orders: (B, L) slices in the order of learning, the same in every shard.
        cumulative: Whether a stage sees the slices before it too.
        deactivates: Whether a deletion ends the stages from its slice on, instead of
            training them again.
        start: Variables before the first stage; None draws them for each shard.
        paces: For each stage a tree like the parameters: what moves. None: everything.
        settings: Digest of all this, hexadecimal.
        about: The same, and of the code that trains.
        key: Draws initialisations and the order of rows.
    """

    learner: Learner
    layout: ShardLayout
    orders: Int[np.ndarray, "b l"]
    cumulative: bool
    deactivates: bool
    start: Variables | None
    paces: tuple[Any, ...] | None
    settings: str
    about: str
    key: PRNGKey


class Sharded(NamedTuple):
    """Description: models by shards that learn and forget rows by their numbers.

    Attributes:
        start: ``() -> state``: no row.
        learn: ``(state, numbers, inputs, targets) -> state``; a number that is taken is
            refused.
        forget: ``(state, numbers) -> state``; a number that is not there is refused.
        renew: ``(state) -> state``: spent slices may be trained on again.
        names: ``(state) -> (S, B, L)`` names of the stages that a state has, by all
            that decides them; "" where there is none.
        models: ``(state, contents) -> Served``: finds stages by name, trains those that
            are missing, and deletes every other.
        predict: ``(served, inputs) -> (n, k)`` class probabilities, or means.
        check: ``(numbers, inputs, targets)``: raises for what are no rows (inputs and
            targets None: numbers alone).
        plan: How it is trained.
    """

    start: Callable[[], ShardState]
    learn: Callable[..., ShardState]
    forget: Callable[..., ShardState]
    renew: Callable[[ShardState], ShardState]
    names: Callable[[ShardState], np.ndarray]
    models: Callable[[ShardState, Contents], Served]
    predict: Callable[[Served, Any], np.ndarray]
    check: Callable[..., None]
    plan: Plan


def sharded(plan: Plan, like: Batch, *, majority: bool, proportional: bool) -> Sharded:
    """The functions of a plan; made by :func:`sisa` and :func:`stagewise`.

    Args:
        plan: How stages are trained.
        like: Rows whose shapes and dtypes all rows have.
        majority: Each model gives its class one vote, instead of its probabilities.
        proportional: Models count by their rows.
    """
    layout, learner = plan.layout, plan.learner
    capacity = len(layout.shard)
    labelled = bool(jnp.issubdtype(np.asarray(like.targets).dtype, jnp.integer))
    if majority and not labelled:
        raise ValueError(
            "majority was asked for a regression, whose outputs are no votes: leave it "
            "out, and the outputs are averaged"
        )

    def start() -> ShardState:
        rows = jax.tree.map(
            lambda x: np.zeros((capacity, *np.shape(x)[1:]), np.asarray(x).dtype), like
        )
        shape = (layout.members.shape[0], plan.orders.shape[1])
        return ShardState(rows, np.zeros(shape, bool))

    def check(numbers: Any, inputs: Any = None, targets: Any = None) -> None:
        chosen = check_numbers(numbers, capacity)
        if inputs is not None or targets is not None:
            check_rows(learner, like, len(chosen), inputs, targets)

    def learn(state: ShardState, numbers: Any, inputs: Any, targets: Any) -> ShardState:
        check(numbers, inputs, targets)
        return state._replace(rows=with_rows(state.rows, numbers, inputs, targets))

    def forget(state: ShardState, numbers: Any) -> ShardState:
        check(numbers)
        rows, spent = without_rows(state.rows, numbers), state.spent
        if plan.deactivates:
            spent = spent.copy()
            spent[layout.shard[numbers], layout.slice[numbers]] = True
        return ShardState(rows, spent)

    def renew(state: ShardState) -> ShardState:
        return state._replace(spent=np.zeros_like(state.spent))

    def predict(served: Served, inputs: Any) -> np.ndarray:
        if not np.any(served.votes > 0):
            raise RefusedError(
                "no shard has a model left, so nothing can be predicted: learn rows, "
                "or renew the slices that are spent"
            )
        outputs = np.asarray(
            _apply_program(learner)(served.variables, jnp.asarray(inputs)), np.float64
        )
        votes = served.votes if proportional else served.votes > 0
        return together(outputs, votes, labelled=labelled, majority=majority)

    return Sharded(
        start,
        learn,
        forget,
        renew,
        functools.partial(stage_names, plan),
        functools.partial(_served, plan),
        predict,
        check,
        plan,
    )


def stage_names(plan: Plan, state: ShardState) -> np.ndarray:
    """(S, B, L) names of the stages of a state; "" where a stage has no rows or ended.

    A name is a digest of the plan, of the shard and order, and of every row that the
    stage was trained on, in its place: of all that decides its parameters.

    Cost: reads every row B times.
    """
    shards, (orders, slices) = len(plan.layout.members), plan.orders.shape
    names = np.full((shards, orders, slices), "", dtype="<U32")
    for s in range(shards):
        known = [_rows_digest(plan, state, s, part) for part in range(slices)]
        for b, order in enumerate(plan.orders):
            before, behind = plan.about, 0
            for i, part in enumerate(order):
                if state.spent[s, part]:
                    break
                digest, count = known[part]
                behind += count
                label = f"{before}/{s}/{b}/{i}/{digest}"
                before = digest_arrays(b"", label, {}).hex()
                names[s, b, i] = before if behind else ""
    return names


def _rows_digest(
    plan: Plan, state: ShardState, shard: int, part: int
) -> tuple[str, int]:
    at = np.flatnonzero(plan.layout.slices[shard] == part)
    numbers = plan.layout.members[shard, at]
    there = present(state.rows)[numbers]
    rows = jax.tree.map(lambda x: np.asarray(x)[numbers[there]], state.rows)
    arrays = {"places": at[there], "inputs": rows.inputs, "targets": rows.targets}
    return digest_arrays(b"", "slice", arrays).hex(), int(there.sum())


def _served(plan: Plan, state: ShardState, contents: Contents) -> Served:
    """Every stage of the state, trained where missing; the longest ones answer."""
    names = stage_names(plan, state)
    like = _like(plan.learner)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    chosen, votes, stages = [], [], []
    for s, orders in enumerate(names):
        found = [
            _train_order(plan, state, contents, (s, b), own)
            for b, own in enumerate(orders)
        ]
        depth, behind, last = max(found, key=lambda order: order[0])
        chosen.append(_read(plan, contents, last) if last else empty)
        votes.append(behind)
        stages.append(depth)
    contents.sweep({str(name) for name in names.ravel() if name})
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chosen)
    return Served(stacked, np.asarray(votes, float), np.asarray(stages, int))


def _train_order(
    plan: Plan,
    state: ShardState,
    contents: Contents,
    place: tuple[int, int],
    names: np.ndarray,
) -> tuple[int, float, str]:
    """Stages that this order has, the rows behind, and the name of the last stage."""
    shard, order = place[0], plan.orders[place[1]]
    slices, members = plan.layout.slices[shard], plan.layout.members[shard]
    there = present(state.rows)[members] & (members >= 0)
    key = functools.reduce(jax.random.fold_in, place, plan.key)
    missing = [i for i, name in enumerate(names) if name and not contents.has(name)]
    for i in range(missing[0] if missing else len(names), len(names)):
        if not names[i]:
            continue
        before = names[i - 1] if i else ""
        start = _read(plan, contents, before) if before else plan.start
        if start is None:
            start = _init_program(plan.learner)(jax.random.fold_in(key, 0))
        seen = np.isin(slices, order[: i + 1] if plan.cumulative else order[i])
        batch = _batch(state.rows, members, there & seen)
        pace = None if plan.paces is None else plan.paces[i]
        given = (jax.random.fold_in(key, i + 1), start, batch, pace)
        contents.keep(names[i], functools.partial(_trained, plan.learner, *given))
    stages = np.flatnonzero(names != "")
    if not stages.size:
        return 0, 0.0, ""
    last = int(stages[-1])
    behind = there & np.isin(slices, order[: last + 1])
    return last + 1, float(behind.sum()), names[last]


def _trained(learner: Learner, *given: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(_stage_program(learner)(*given))
    return {str(i): leaf for i, leaf in enumerate(leaves)}


def _read(plan: Plan, contents: Contents, name: str) -> Variables:
    like = _like(plan.learner)
    kept = contents.load(name)
    leaves = [jnp.asarray(kept[str(i)]) for i in range(len(kept))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _batch(rows: Batch, members: np.ndarray, seen: np.ndarray) -> Batch:
    """The rows of a shard in their places; zeros for those that are not seen."""

    def gathered(field: np.ndarray) -> Any:
        chosen = seen.reshape(-1, *[1] * (field.ndim - 1))
        return jnp.asarray(np.where(chosen, field[members], 0).astype(field.dtype))

    return jax.tree.map(gathered, rows)


@functools.lru_cache(maxsize=8)
def _like(learner: Learner) -> Any:
    return jax.eval_shape(learner.model.init, jax.random.key(0))


@functools.lru_cache(maxsize=8)
def _stage_program(learner: Learner) -> Callable[..., Variables]:
    return jax.jit(
        lambda key, start, data, pace: fit(key, learner, data, start=start, pace=pace)
    )


@functools.lru_cache(maxsize=8)
def _init_program(learner: Learner) -> Callable[..., Variables]:
    return jax.jit(learner.model.init)


@functools.lru_cache(maxsize=8)
def _apply_program(learner: Learner) -> Callable[..., Any]:
    return jax.jit(jax.vmap(learner.model.apply, (0, None)))


def describe_plan(plan: Plan, like: Batch) -> Plan:
    """The plan with digests of all that decides its stages, but rows.

    The code that trains is within that of names: another version trains everything
    anew, and goes on from the same rows.
    """
    pieces = jax.tree.leaves((plan.start, plan.paces))
    told = describe_learner(plan.learner, like.inputs, like.targets) | {
        "cumulative": plan.cumulative,
        "deactivates": plan.deactivates,
    }
    arrays = {
        "key": np.asarray(jax.random.key_data(plan.key)),
        "members": plan.layout.members,
        "slices": plan.layout.slices,
        "orders": plan.orders,
        **{str(i): np.asarray(leaf) for i, leaf in enumerate(pieces)},
    }
    settings = digest_arrays(b"", json.dumps(told, sort_keys=True), arrays).hex()
    about = digest_arrays(b"", f"{settings}/{source_digest(TRAINING)}", {}).hex()
    return plan._replace(settings=settings, about=about)
