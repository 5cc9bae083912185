"""One method on one data set, with all metrics.

Question: what does this method do here, with these hyper-parameters?
Command: ``python -m experiments.unlearn ssd --method.alpha 3`` (digits, half a minute
on two CPU cores); every other option is that of ``experiments.compare``.
Expect: the rows original, the method, oracle, and oracle against oracle.
"""

import difflib
import inspect
from collections.abc import Sequence

from experiments.compare import STUDY as COMPARE
from experiments.compare.config import entry_of
from experiments.frame.command import main
from experiments.frame.options import argument_help, hyperparameters
from experiments.frame.study import run
from unlearn_jax.methods import METHODS

STUDY = COMPARE._replace(name="unlearn", text=__doc__)

_OPTION = "--method."


def command(arguments: Sequence[str]) -> int:
    """Parse, run, report; the exit code is 1 when a cell failed."""
    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\nusage: python -m experiments.unlearn METHOD [options]")
        print(f"METHOD: {', '.join(METHODS)}, or my_file.py:my_method")
        return 0
    name = words.pop(0)
    if name not in METHODS and ":" not in name:
        near = difflib.get_close_matches(name, METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no method {name!r}{hint} There are {', '.join(METHODS)}")
    if {"-h", "--help"} & set(words):
        print(method_help(name))
        return 0
    own, rest = method_options(name, words)
    options = ["--options", *own] if own else []
    return run(STUDY, ["--methods", name, *rest, *options])


def method_options(name: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """``--method.alpha 3`` (or ``=3``) as ``ssd.alpha=3``, and all other words."""
    own, rest, left = [], [], list(words)
    while left:
        word = left.pop(0)
        if not word.startswith(_OPTION):
            rest.append(word)
            continue
        option, equals, value = word.removeprefix(_OPTION).partition("=")
        if not equals:
            if not left:
                raise ValueError(f"{word} needs a value, such as {word} 3")
            value = left.pop(0)
        own.append(f"{name}.{option.replace('-', '_')}={value}")
    return own, rest


def method_help(name: str) -> str:
    """What a method is, and its hyper-parameters with their defaults."""
    factory = entry_of(name).factory
    told = argument_help(factory)
    lines = [inspect.getdoc(factory) or name, "", "options of the method:"]
    for word, parameter in hyperparameters(factory).items():
        lines.append(
            f"  {_OPTION}{word}  {told.get(word, '')} (default: {parameter.default})"
        )
    lines += ["", "all others: python -m experiments.compare --help"]
    return "\n".join(lines)


if __name__ == "__main__":
    main(command)
