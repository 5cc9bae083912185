"""Refusals as data: what a setting may be, checked before anything begins."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """What one setting must fulfil.

    Attributes:
        setting: Its name as on the command line, "data.limit".
        holds: Of its value; of each of them, where it holds several.
        expected: What is expected, in words.
        whole: Of a list as a whole instead of each of its entries.
    """

    setting: str
    holds: Callable[[Any], bool]
    expected: str
    whole: bool = False


def at_least(least: float, *settings: str) -> tuple[Rule, ...]:
    """Numbers that are not below ``least``; nor NaN, nor infinite."""
    holds = functools.partial(_between, least, math.inf, False)
    return _each(settings, holds, f"at least {least:g}")


def above(least: float, *settings: str) -> tuple[Rule, ...]:
    """Finite numbers above ``least``."""
    holds = functools.partial(_between, least, math.inf, True)
    return _each(settings, holds, f"more than {least:g}")


def between(low: float, high: float, *settings: str) -> tuple[Rule, ...]:
    """Numbers from ``low`` to ``high``, both allowed."""
    holds = functools.partial(_between, low, high, False)
    return _each(settings, holds, f"{low:g} to {high:g}")


def share(*settings: str) -> tuple[Rule, ...]:
    """A true part of a whole: above 0 and below 1."""
    return _each(settings, _is_share, "a number between 0 and 1")


def one_of(names: Collection[str], *settings: str) -> tuple[Rule, ...]:
    """Words that a table knows."""
    return _each(settings, names.__contains__, f"one of {', '.join(names)}")


def some(*settings: str) -> tuple[Rule, ...]:
    """Lists that are not empty and name nothing twice: rows could not be told apart."""
    return _each(settings, _some, "at least one, none of them twice", whole=True)


def distinct(*settings: str) -> tuple[Rule, ...]:
    """Lists that name nothing twice, and may be empty."""
    return _each(settings, _distinct, "none of them twice", whole=True)


def check_rules(config: Any, rules: Iterable[Rule]) -> None:
    """Refuse a configuration that breaks a rule.

    Raises:
        ValueError: the setting, its value, and what is expected.
    """
    for rule in rules:
        value = functools.reduce(getattr, rule.setting.split("."), config)
        several = isinstance(value, tuple) and not rule.whole
        values = value if several else (value,)
        for one in values:
            if not rule.holds(one):
                told = ", ".join(map(str, one)) if isinstance(one, tuple) else one
                raise ValueError(
                    f"{rule.setting} is {told!r}; expected {rule.expected}"
                )


def unknown_settings(config: Any, rules: Iterable[Rule]) -> list[str]:
    """Settings that rules name and the configuration lacks; for tests."""
    missing = []
    for rule in rules:
        kind: Any = config
        for name in rule.setting.split("."):
            known = {f.name for f in dataclasses.fields(kind)}
            if name not in known:
                missing.append(rule.setting)
                break
            kind = getattr(kind, name)
    return missing


def _each(
    settings: Iterable[str],
    holds: Callable[[Any], bool],
    expected: str,
    *,
    whole: bool = False,
) -> tuple[Rule, ...]:
    return tuple(Rule(setting, holds, expected, whole) for setting in settings)


def _between(low: float, high: float, strict: bool, value: Any) -> bool:
    inside = low < value if strict else low <= value
    return bool(inside and value <= high and math.isfinite(value))


def _is_share(value: Any) -> bool:
    return 0 < value < 1


def _some(values: Any) -> bool:
    return bool(values) and _distinct(values)


def _distinct(values: Any) -> bool:
    return max(Counter(values).values(), default=1) == 1
