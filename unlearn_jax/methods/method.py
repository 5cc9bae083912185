"""A method is two pure functions; requests, and ways to combine methods."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax import tree
from unlearn_jax.data.batch import bucket, pad, take
from unlearn_jax.data.forget import check_indices
from unlearn_jax.solvers.solution import Report, both_reports, no_report
from unlearn_jax.types import Batch, Path, PRNGKey, Variables


class Request(NamedTuple):
    """Value: one forget set and what remains.

    Attributes:
        forget: The examples to forget, padded with weight zero, see
            :func:`unlearn_jax.data.batch.bucket`.
        retain: The whole training set with weight zero on the forgotten examples, so
            that every request has one shape and nothing is copied.
    """

    forget: Batch
    retain: Batch


class Method(NamedTuple):
    """Description: how to unlearn.

    Attributes:
        prepare: ``(key, original, train) -> state``; once, before any request is known.
        forget: ``(key, state, variables, request) -> (variables, state)``; per request.
            The state carries on, so requests can follow one another.
        reads_trace: Whether ``prepare`` has one argument more, the
            :class:`unlearn_jax.attribution.trace.Trace` of the run that gave the
            original.
        reported: As ``forget``, with a third result, the
            :class:`unlearn_jax.solvers.solution.Report` of its solver; None where no
            solver is.
    """

    prepare: Callable[..., Any]
    forget: Callable[[Any, Any, Variables, Request], tuple[Variables, Any]]
    reads_trace: bool = False
    reported: Callable[[Any, Any, Variables, Request], Any] | None = None


def make_request(train: Batch, indices: Any) -> Request:
    """The request to forget the training examples at ``indices``.

    Raises:
        ValueError: empty, out of range, repeated, gone already (of weight 0, after an
            earlier request), or nothing would remain.
    """
    there = np.asarray(train.weights) != 0
    chosen = check_indices(np.asarray(indices), len(there))
    gone = chosen[~there[chosen]]
    if gone.size:
        raise ValueError(
            f"{gone.size} of {chosen.size} examples to forget have weight 0, the first "
            f"is example {int(gone[0])}, so they are not there any more: leave them "
            "out"
        )
    if chosen.size == np.count_nonzero(there):
        raise ValueError(
            f"the forget set holds all {chosen.size} training examples that are left, "
            "expected some to retain: forget fewer, there is nothing to learn from "
            "otherwise"
        )
    forget = pad(take(train, chosen), bucket(len(chosen)))
    weights = np.array(train.weights)
    weights[chosen] = 0
    return Request(forget, train._replace(weights=jnp.asarray(weights)))


def stateless(
    forget: Callable[[PRNGKey, Variables, Request], Variables],
) -> Method:
    """A method with nothing to prepare."""

    def step(
        key: PRNGKey, state: tuple[()], variables: Variables, request: Request
    ) -> tuple[Variables, tuple[()]]:
        return forget(key, variables, request), state

    return Method(nothing, step)


def nothing(key: PRNGKey, original: Variables, train: Batch) -> tuple[()]:
    """The ``prepare`` of a method that has nothing to prepare."""
    del key, original, train
    return ()


def solving(
    reported: Callable[[Any, Any, Variables, Request], tuple[Variables, Any, Report]],
    prepare: Callable[..., Any] = nothing,
) -> Method:
    """A method whose solver is heard: ``forget`` is ``reported`` less the report."""

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        return reported(key, state, variables, request)[:2]

    return Method(prepare, forget, reported=reported)


def chain(*methods: Method) -> Method:
    """One method after the other on the same request; the state is a tuple of theirs.

    Of what their solvers report, all steps and the first that failed.

    Raises:
        ValueError: no method given.
    """
    if not methods:
        raise ValueError("chain needs at least one method, got none")

    def prepare(
        key: PRNGKey, original: Variables, train: Batch, *trace: Any
    ) -> tuple[Any, ...]:
        keys = jax.random.split(key, len(methods))
        return tuple(
            method.prepare(k, original, train, *(trace if method.reads_trace else ()))
            for method, k in zip(methods, keys, strict=True)
        )

    def reported(
        key: PRNGKey, state: tuple[Any, ...], variables: Variables, request: Request
    ) -> tuple[Variables, tuple[Any, ...], Report]:
        states, told = [], no_report()
        keys = jax.random.split(key, len(methods))
        for method, k, own in zip(methods, keys, state, strict=True):
            variables, own, *more = _loudest(method)(k, own, variables, request)
            states.append(own)
            told = both_reports(told, more[0]) if more else told
        return variables, tuple(states), told

    made = solving(reported, prepare)
    solves = any(method.reported is not None for method in methods)
    return made._replace(
        reads_trace=any(method.reads_trace for method in methods),
        reported=made.reported if solves else None,
    )


def _loudest(method: Method) -> Callable[..., Any]:
    """``reported`` where there is a solver, else ``forget``."""
    return method.reported or method.forget


def restrict(method: Method, where: Callable[[Path], bool]) -> Method:
    """The same method, but only parameters on selected paths move.

    Args:
        method: Runs on all parameters; the others are put back afterwards.
        where: Of a path such as ``("blocks", 3, "conv1", "kernel")``. Batch statistics
            are put back too.

    Raises:
        ValueError: from ``forget``, when no path is selected.
    """

    def begin(
        run: Callable[..., Any],
        key: PRNGKey,
        state: Any,
        variables: Variables,
        request: Request,
    ) -> Any:
        chosen = tree.select(variables.params, where)
        if not any(jax.tree.leaves(chosen)):
            paths = jax.tree_util.tree_leaves_with_path(chosen)
            raise ValueError(
                f"restrict selects no parameter, so nothing could move; the paths are "
                f"{', '.join(str(tree.path_names(path)) for path, _ in paths)}"
            )
        moved, *left = run(key, state, variables, request)
        params = jax.tree.map(
            lambda keep, new, old: new if keep else old,
            chosen,
            moved.params,
            variables.params,
        )
        return variables._replace(params=params), *left

    return method._replace(
        forget=functools.partial(begin, method.forget),
        reported=method.reported and functools.partial(begin, method.reported),
    )
