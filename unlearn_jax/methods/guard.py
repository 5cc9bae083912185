"""What every factory of a method begins with: options and data are checked there."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import jax
import jax.numpy as jnp

from unlearn_jax.methods.method import Method, Request
from unlearn_jax.options import check_options
from unlearn_jax.train.entrance import check_learnable, inside
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, PRNGKey, Variables

P = ParamSpec("P")
Factory = Callable[Concatenate[Learner, P], Method]


def entrance(
    *, signed: tuple[str, ...] = (), zero: tuple[str, ...] = ()
) -> Callable[[Factory[P]], Factory[P]]:
    """Decorator of a factory: refuses options and, in its methods, batches.

    Args:
        signed: Numbers that may be negative.
        zero: Counts that may be 0.
    """

    def decorate(factory: Factory[P]) -> Factory[P]:
        @functools.wraps(factory)
        def build(learner: Learner, *args: P.args, **options: P.kwargs) -> Method:
            check_options(factory, options, signed=signed, zero=zero)
            return guarded(learner, factory(learner, *args, **options))

        return build

    return decorate


def guarded(learner: Learner, method: Method) -> Method:
    """The same method; what its learner cannot digest is refused before it begins.

    ``prepare`` and ``forget`` raise ValueError on concrete batches as
    :func:`unlearn_jax.train.entrance.check_learnable` does.
    """

    def prepare(key: PRNGKey, original: Variables, train: Batch, *trace: Any) -> Any:
        check_learnable(learner, train, name="training set", variables=original)
        if len(trace) != method.reads_trace:
            raise ValueError(
                f"prepare got {len(trace)} traces, expected {int(method.reads_trace)}: "
                "give key, original and training set, and the trace of the run "
                "(attribution.trace) where the method reads one"
            )
        with inside():
            return method.prepare(key, original, train, *trace)

    def checked(forget: Callable[..., Any]) -> Callable[..., Any]:
        def begin(
            key: PRNGKey, state: Any, variables: Variables, request: Request
        ) -> Any:
            for name, part in zip(("forget set", "retain set"), request, strict=True):
                check_learnable(
                    learner, part, name=name, variables=variables, empty=True
                )
            with inside():
                return forget(key, state, variables, request)

        return begin

    reported = checked(method.reported) if method.reported is not None else None
    return method._replace(
        prepare=prepare, forget=checked(method.forget), reported=reported
    )


def check_floating(name: str, data: Batch) -> None:
    """Refuse inputs that have no gradient, for a method that moves inputs.

    Raises:
        ValueError: whole numbers, such as tokens.
    """
    kinds = {jnp.result_type(leaf) for leaf in jax.tree.leaves(data.inputs)}
    whole = [kind for kind in kinds if not jnp.issubdtype(kind, jnp.floating)]
    if whole:
        raise ValueError(
            f"{name} follows gradients by the inputs, got inputs of {whole[0]}, "
            "expected floating point: take random_labels for whole numbers"
        )
