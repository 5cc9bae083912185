"""What the training of an original leaves for methods that read a trace of it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.attribution.trace import Trace, checkpoints_of, trace_like, trace_of
from unlearn_jax.evaluation.cost import Compiled, Cost, compile_once, run
from unlearn_jax.train import checkpoint
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import fit_trajectory
from unlearn_jax.types import Batch, PRNGKey, Variables

_KEPT = ("compile_seconds", "seconds", "cpu_seconds")


def kept_trace(
    place: Path,
    learner: Learner,
    train: Batch,
    original: Variables,
    keys: tuple[PRNGKey, PRNGKey],
    programs: dict[Any, Compiled],
) -> tuple[Trace, Cost]:
    """The trace of one original, and its price; made once.

    Checkpoints come from the original's run, repeated by its key: kept while it trained
    they would have cost nothing, so the repetition is not counted. The loss on what was
    never seen comes from a tenth of the training set, by one more training that is.

    Args:
        place: Where it is kept; named by all that decides it.
        learner: That the original was trained with.
        train: On what.
        original: The trained model.
        keys: Of its training, and of the trace.
        programs: What is compiled already; both programs are added.
    """
    number = jax.ShapeDtypeStruct((), jnp.float32)
    if place.is_dir():
        _, like = trace_like(learner, train)
        trace, told = checkpoint.load(place, (like, dict.fromkeys(_KEPT, number)))
        costs = {name: float(value) for name, value in told.items()}
        return trace, Cost(repeats=1, peak_bytes=None, flops=None, **costs)
    points = checkpoints_of(learner)

    def way(key: Any, data: Batch) -> Any:
        return fit_trajectory(key, learner, data, points=points)[1]

    def left(key: Any, original: Variables, pieces: Any, data: Batch) -> Trace:
        return trace_of(key, learner, original, pieces, data)

    own, key = keys
    if "way" not in programs:
        programs["way"] = compile_once(way, own, train)
    pieces = programs["way"].call(own, train)
    arguments = (key, original, pieces, train)
    if "trace" not in programs:
        programs["trace"] = compile_once(left, *arguments)
    trace, cost = run(programs["trace"], *arguments)
    told = {name: jnp.asarray(getattr(cost, name), jnp.float32) for name in _KEPT}
    checkpoint.save(place, (trace, told))
    return trace, cost
