"""Types of the library's functions are checked in every test, by beartype."""

from typing import Any

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
