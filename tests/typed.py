"""Types of the library's functions are checked in every test, by beartype."""

from typing import Any

import jaxtyping._typeguard
from beartype import beartype

CHECKS: dict[Any, Any] = {}


def checked_once(function):
    """``beartype``, one check for every function of the same name, code and hints.

    jaxtyping hands over a function without a body, whose signature alone counts. For a
    function inside another it does so at every call of the outer one, and beartype
    would write and compile the same check each time: a fifth of the time of tracing.
    """
    if function.__defaults__ or function.__kwdefaults__:
        return beartype(function)
    name = (function.__module__, function.__qualname__, function.__code__)
    try:
        key = (*name, *function.__annotations__.items())
        if key not in CHECKS:
            CHECKS[key] = beartype(function)
    except TypeError:  # a hint that cannot be hashed
        return beartype(function)
    return CHECKS[key]


def leaf_check(function):
    """What ``jaxtyping`` asks of each leaf of a ``PyTree[kind]``, by ``isinstance``.

    Its own copy of typeguard reads the function's signature anew for every leaf of
    every argument of every call: a tenth of the suite's time.
    """
    (kind,) = function.__annotations__.values()

    def accepts(leaf):
        if not isinstance(leaf, kind):
            raise TypeError(f"{type(leaf)} is no {kind}")

    return accepts


def check_leaves_quickly():
    """Put ``leaf_check`` where ``PyTree[kind]`` looks for its checker."""
    assert callable(jaxtyping._typeguard.typechecked)
    jaxtyping._typeguard.typechecked = leaf_check
