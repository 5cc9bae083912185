"""Options from the command line to the factory, typed once, at the edge.

A factory's keyword-only parameters are its options and its docstring is their help:
hyper-parameters are written once in the code base. On the command line they are words,
``ssd.alpha=5``; from there on they are values of the parameter's own type.
"""

import ast
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from unlearn_jax.data.indices import UNREADABLE

Factory = Callable[..., Any]

_KINDS = {int: "whole number", bool: "truth value; write True or False"}


class Options(Mapping[str, Mapping[str, Any]]):
    """Values by name of a factory and name of its option; never changed.

    Args:
        given: ``{"ssd": {"alpha": 5.0}}``.
    """

    def __init__(self, given: Mapping[str, Mapping[str, Any]] = MappingProxyType({})):
        self._given = {name: dict(own) for name, own in given.items() if own}

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __hash__(self) -> int:
        return hash(tuple(self.words()))

    def of(self, name: str) -> Mapping[str, Any]:
        """Those of one factory, none if it was given none."""
        return self._given.get(name, {})

    def over(self, preset: "Options") -> "Options":
        """These over a preset's: what is given replaces a value, the others stay."""
        names = dict.fromkeys((*preset, *self))
        return Options({name: {**preset.of(name), **self.of(name)} for name in names})

    def only(self, names: Sequence[str]) -> "Options":
        """Those of some factories; options of one that is not used mean nothing."""
        return Options({name: own for name, own in self.items() if name in names})

    def words(self) -> list[str]:
        """As they are typed, ``ssd.alpha=5.0``."""
        return [
            f"{name}.{option}={_told(value)}"
            for name, own in self.items()
            for option, value in own.items()
        ]

    def settings(self, name: str) -> list[dict[str, Any]]:
        """Every combination of the values of one factory's options.

        Each option holds several values, see :func:`words_of`; one empty setting where
        there is no option.
        """
        return grid(self.of(name))


def grid(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of values, the last name's running fastest."""
    combined = itertools.product(*axes.values())
    return [dict(zip(axes, values, strict=True)) for values in combined]


def words_of(factories: Mapping[str, Factory], *, several: bool = False) -> Any:
    """What ``Annotated[Options, ...]`` needs to be read from the command line.

    Args:
        factories: Whose options.
        several: Whether an option takes several values, ``ssd.alpha=1,3,10``, to be
            tried one by one; it then is a tuple, of one value also.
    """
    from tyro.constructors import PrimitiveConstructorSpec

    value = "VALUE[,VALUE ...]" if several else "VALUE"
    read = functools.partial(_parsed, factories=factories, several=several)
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[NAME.OPTION={value} ...]",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, Options),
        str_from_instance=lambda options: options.words(),
    )


class OptionError(Exception):
    """Words that are no options; not a ValueError, of which tyro makes pages."""


def _parsed(
    words: list[str], factories: Mapping[str, Factory], several: bool
) -> Options:
    try:
        return parse_options(words, factories, several=several)
    except ValueError as error:
        raise OptionError(str(error)) from None


def parse_options(
    words: Sequence[str], factories: Mapping[str, Factory], *, several: bool = False
) -> Options:
    """Turn "name.option=value" words into values of the options' own types.

    Args:
        words: As typed.
        factories: Whose options.
        several: See :func:`words_of`.

    Raises:
        ValueError: no such name or option, not a value of its kind, or one that is
            given twice.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for text in words:
        target, equals, value = text.partition("=")
        name, dot, option = target.rpartition(".")
        if not equals or not dot or name not in factories:
            raise ValueError(
                f"cannot read the option {text!r}; write name.option=value, such as "
                f"ssd.alpha=5, with one of {', '.join(factories)}"
            )
        default = option_default(name, factories[name], option)
        own = parsed.setdefault(name, {})
        if option in own:
            raise ValueError(
                f"the options set {name}.{option} twice; give it one value"
            )
        if not several:
            own[option] = read_option(text, value, default)
            continue
        read = tuple(read_option(text, one, default) for one in value.split(","))
        if len(set(read)) < len(read):
            raise ValueError(f"{text!r} gives a value twice; give it once")
        own[option] = read
    return Options(parsed)


def _told(value: Any) -> str:
    several = isinstance(value, tuple | list)
    return ",".join(map(str, value)) if several else str(value)


def option_default(name: str, factory: Factory, option: str) -> Any:
    """The default of a factory's option, which tells its type.

    Raises:
        ValueError: it has no such option; names those that it has.
    """
    known = hyperparameters(factory)
    if option not in known:
        raise ValueError(
            f"{name} has no hyper-parameter {option!r}; it has "
            f"{', '.join(known) or 'none'}"
        )
    return known[option].default


def read_option(option: str, value: str, default: Any) -> Any:
    """A value of the default's type; words need no quotes, nothing is cut off.

    Raises:
        ValueError: another type, such as 2.7 for a whole number.
    """
    if isinstance(default, str):
        return value.strip("'\"")
    kind = _KINDS.get(type(default), "number")
    try:
        read: Any = ast.literal_eval(value)
        if default is None and value == "None":
            return None
        fits = type(read) in ((bool,) if isinstance(default, bool) else (int, float))
        if isinstance(default, int) and fits:
            fits = read == int(read)
        if not fits:
            raise ValueError(value)
        return read if default is None else type(default)(read)
    except UNREADABLE:
        raise ValueError(f"{option!r}: {value!r} is not a {kind}") from None


def hyperparameters(factory: Factory) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a factory."""
    return {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def argument_help(factory: Factory) -> dict[str, str]:
    """The text of each line under ``Args:`` in a docstring."""
    text = inspect.getdoc(factory) or ""
    section = re.search(r"^Args:\n((?:[ \n].*\n?)+)", text, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(
        r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section.group(1), re.MULTILINE
    )
    return {word: " ".join(line.split()) for word, line in entries}
