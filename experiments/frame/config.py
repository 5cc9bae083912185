"""Configurations: what all studies share, from the command line and back from disk."""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from experiments.frame.options import OptionError, Options
from experiments.frame.words import asked

ConfigT = TypeVar("ConfigT")

Scale: TypeAlias = Literal["smoke", "small", "paper", "custom"]
SCALES = ("smoke", "small", "paper")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What every study is asked.

    Attributes:
        scale: Which preset the values come from.
        name: A name for the run, by which ``python -m experiments.list runs`` finds it.
        results: Folder for runs; trained models are kept and found again there.
        FREE: Settings that no number depends on: a preset with others is still that
            preset.
    """

    FREE: ClassVar[tuple[str, ...]] = ("name", "results")

    scale: Scale = "small"
    name: str = ""
    results: Path = Path("results")


def parse(
    presets: Mapping[str, ConfigT],
    arguments: Sequence[str],
    *,
    prog: str,
    text: str | None,
) -> ConfigT:
    """The configuration of a command line: a preset, and what changes it.

    Options that are given for one method leave the preset's others alone. The scale of
    what comes out is "custom" where anything is changed.

    Raises:
        ValueError: no such scale, or words that cannot be read.
    """
    scale = word_after(arguments, "--scale") or next(iter(presets))
    if scale not in presets:
        raise ValueError(f"--scale is {scale!r}; choose from {', '.join(presets)}")
    preset: Any = presets[scale]
    try:
        told = {"default": preset, "prog": prog, "description": text}
        given: Any = asked(type(preset), arguments, **told)
    except OptionError as error:
        raise ValueError(str(error)) from None
    for field in dataclasses.fields(given):
        own = getattr(given, field.name)
        if isinstance(own, Options):
            merged = own.over(getattr(preset, field.name))
            given = dataclasses.replace(given, **{field.name: merged})
    return labelled(given, preset)


def labelled(given: Any, preset: Any) -> Any:
    """The configuration with a scale that is true: "custom" once it was changed."""
    free = {name: getattr(given, name) for name in given.FREE}
    if any(field.name == "data" for field in dataclasses.fields(given)):
        free["data"] = dataclasses.replace(preset.data, dir=given.data.dir)
    if dataclasses.replace(preset, **free) == given:
        return given
    return dataclasses.replace(given, scale="custom")


def word_after(arguments: Sequence[str], flag: str) -> str | None:
    """The value of ``--flag value`` or ``--flag=value``, before anything is parsed."""
    for position, word in enumerate(arguments):
        if word == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def restored(kind: type[ConfigT], told: Any) -> ConfigT:
    """A configuration back from the JSON in ``run.json``; undoes ``plain_config``.

    Raises:
        ValueError: it does not fit the type: the run is of another version.
    """
    try:
        return _restored(kind, told)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the run's configuration is not one of this version's ({error}); run the "
            "command in its run.json again"
        ) from None


def _restored(kind: Any, told: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _restored(arguments[0], told)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        if set(told) != {field.name for field in dataclasses.fields(kind)}:
            raise ValueError(f"other settings than {kind} has")
        own = {name: _restored(hints[name], value) for name, value in told.items()}
        return typing.cast(Any, kind)(**own)
    if origin in (typing.Union, types.UnionType):
        if told is None:
            return None
        kinds = [one for one in arguments if one is not type(None)]
        return _restored(kinds[0], told) if len(kinds) == 1 else told
    if origin is tuple:
        ends = arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(told) if ends else arguments
        return tuple(_restored(k, v) for k, v in zip(kinds, told, strict=True))
    if kind is float:
        return math.nan if told == "nan" else float(told)
    if kind is Options:
        # What is tried of an option is a tuple, which JSON holds as a list.
        return Options(
            {
                name: {
                    k: tuple(v) if isinstance(v, list) else v for k, v in own.items()
                }
                for name, own in told.items()
            }
        )
    if inspect.isclass(kind) and issubclass(kind, Path):
        return kind(told)
    return told
