"""One method on one data set, with all metrics.

Question: what does this method do here, with these hyper-parameters?
Command: ``python -m experiments.unlearn ssd --method.alpha 3`` (digits, half a minute
on two CPU cores); every other option is that of ``experiments.compare``.
Expect: the rows original, the method, oracle, and oracle against oracle.
"""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from experiments._config import Config, hyperparameters, parse_options
from experiments._main import chosen_preset, finish, labelled, main
from experiments._pipeline import compare
from unlearn_jax.methods import METHODS

_CHOSEN_HERE = ("methods", "options")


def options_type(name: str) -> type:
    """A dataclass of a method's hyper-parameters, documented by its ``Args`` lines."""
    factory = METHODS[name].factory
    help_lines = argument_help(factory)
    fields = [
        (
            word,
            Annotated[
                type(parameter.default), tyro.conf.arg(help=help_lines.get(word, ""))
            ],
            dataclasses.field(default=parameter.default),
        )
        for word, parameter in hyperparameters(factory).items()
    ]
    return dataclasses.make_dataclass(f"{name}_options", fields, frozen=True)


def argument_help(factory: Callable[..., Any]) -> dict[str, str]:
    """The text of each line under ``Args:`` in a docstring."""
    text = inspect.getdoc(factory) or ""
    section = re.search(r"^Args:\n((?:[ \n].*\n?)+)", text, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(
        r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section.group(1), re.MULTILINE
    )
    return {word: " ".join(line.split()) for word, line in entries}


def command(arguments: Sequence[str]) -> int:
    """Parse, run, report; the exit code is 1 when a cell failed."""
    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nusage: python -m experiments.unlearn METHOD [options]")
        print(f"METHOD: {', '.join(METHODS)}")
        return 0
    name = words.pop(0)
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no method {name!r}{hint} There are {', '.join(METHODS)}")
    default = chosen_preset(words)
    options = options_type(name)
    rest = [f for f in dataclasses.fields(Config) if f.name not in _CHOSEN_HERE]
    run = dataclasses.make_dataclass(
        "Run",
        [
            (f.name, f.type, dataclasses.field(default=getattr(default, f.name)))
            for f in rest
        ],
        frozen=True,
    )
    run.__doc__ = Config.__doc__
    tuned = parse_options(default.options, METHODS)[name]
    asked: Any = dataclasses.make_dataclass(
        "Asked",
        [
            ("method", options, dataclasses.field(default=options(**tuned))),
            ("run", Annotated[run, tyro.conf.arg(name="")], run()),
        ],
    )
    parsed = tyro.cli(
        asked,
        args=words,
        prog=f"python -m experiments.unlearn {name}",
        description=inspect.getdoc(METHODS[name].factory),
    )
    given = dataclasses.asdict(parsed.method)
    config = dataclasses.replace(
        default,
        **{f.name: getattr(parsed.run, f.name) for f in rest},
        methods=(name,),
        options=tuple(f"{name}.{word}={value}" for word, value in given.items()),
    )
    plain = dataclasses.replace(
        config, methods=default.methods, options=default.options
    )
    scale = labelled(plain).scale if given == {**given, **tuned} else "custom"
    config = dataclasses.replace(config, scale=scale)
    return compare(config, finish, experiment="unlearn")


if __name__ == "__main__":
    main(command)
