"""Numbers and words that a user chooses: refused where they are given, in one sentence.

``check_options`` reads a factory's annotations: an ``int`` is a whole number, a
``float`` a finite one, a ``bool`` yes or no. Nothing is cut off or converted without a
word.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")


def check_whole(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is not a whole number of at least ``least``.

    Raises:
        ValueError: another kind of value, a fraction, or one that is too small.
    """
    value = _plain(value)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_):
        raise ValueError(
            f"{name} must be a whole number, got {value!r}: write one without a "
            "fraction"
        )
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}: raise it")


def check_number(
    name: str, value: Any, *, least: float = -math.inf, positive: bool = False
) -> None:
    """Refuse what is not a finite number of at least ``least``; tracers pass.

    Args:
        name: What the sentence calls it.
        value: A number, or an array that holds one.
        least: Smallest value that makes sense.
        positive: Zero makes none either.

    Raises:
        ValueError: another kind of value, NaN, infinity, or one that is too small.
    """
    if isinstance(value, Tracer):
        return
    value = _plain(value)
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {value!r}: change it")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}: change it")
    if positive and value <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}: raise it")
    if value < least:
        bound = "negative" if least == 0 else f"below {least:g}"
        raise ValueError(f"{name} must not be {bound}, got {value!r}: raise it")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Refuse what is not of this type, such as 3 where True or False is meant.

    Raises:
        ValueError: a value of another type.
    """
    allowed = (bool, np.bool_) if kind is bool else kind
    if not isinstance(value, allowed):
        expected = "True or False" if kind is bool else f"a {kind.__name__}"
        raise ValueError(f"{name} must be {expected}, got {value!r}: change it")


def check_options(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    signed: tuple[str, ...] = (),
    zero: tuple[str, ...] = (),
) -> None:
    """Refuse values that do not fit the annotations of a factory's keywords.

    Args:
        factory: Its keyword-only parameters annotated int, float, bool or str, or one
            of them or None, are checked; others are its own affair.
        options: Values by name.
        signed: Numbers that may be negative.
        zero: Counts that may be 0.

    Raises:
        ValueError: names the factory, the option, what was given and what to change.
    """
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name not in options:
            continue
        value, kinds = options[name], _kinds(parameter.annotation)
        if value is None and types.NoneType in kinds:
            continue
        told = f"{factory.__name__}: {name}"
        if int in kinds:
            check_whole(told, value, least=0 if name in zero else 1)
        elif float in kinds:
            check_number(told, value, least=-math.inf if name in signed else 0.0)
        elif bool in kinds or str in kinds:
            check_kind(told, value, bool if bool in kinds else str)


def checked(
    *, signed: tuple[str, ...] = (), zero: tuple[str, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: :func:`check_options` of a function's keywords, whenever it is called.

    Args:
        signed: Numbers that may be negative.
        zero: Counts that may be 0.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **options: P.kwargs) -> R:
            check_options(function, options, signed=signed, zero=zero)
            return function(*args, **options)

        return run

    return decorate


def _plain(value: Any) -> Any:
    """An array of one number as that number, so that both kinds are judged alike."""
    if (
        hasattr(value, "dtype")
        and np.ndim(value) == 0
        and not isinstance(value, Tracer)
    ):
        return np.asarray(value).item()
    return value


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)
