"""Who competes: every method with its options, and every setting of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.compare.config import FACTORIES, Config, entry_of, methods_of
from experiments.frame.options import grid, parse_options
from experiments.frame.plugins import short_name
from unlearn_jax.methods import METHODS, Entry


class Contender(NamedTuple):
    """Description: one method at one setting.

    Attributes:
        name: Of its row: the method's, and the swept values, "ssd alpha=3".
        method: As in ``Config.methods``.
        entry: How it is made.
        options: Its hyper-parameters, but for those left at their defaults.
    """

    name: str
    method: str
    entry: Entry
    options: dict[str, Any]


def contenders(config: Config, task: str) -> list[Contender]:
    """All rows of a comparison but for the references.

    Raises:
        ValueError: an unknown method, one that cannot do the task, options that do not
            fit, two methods of one name.
    """
    methods = methods_of(config.methods, task)
    swept = parse_sweep(config.sweep, methods)
    found = []
    for method in methods:
        entry = entry_of(method)
        if task not in entry.tasks:
            able = [name for name, e in METHODS.items() if task in e.tasks]
            raise ValueError(
                f"{method} unlearns {' and '.join(entry.tasks)}, this data set is a "
                f"{task}; methods for it: {', '.join(able)}"
            )
        own = dict(config.options.of(method))
        for values in swept.get(method, [{}]):
            name = " ".join([short_name(method), *words_of_setting(values)])
            found.append(Contender(name, method, entry, own | values))
    names = [contender.name for contender in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"two contenders are called {twice[0]!r}, so their rows could not be told "
            "apart; give it once, or another name in your file"
        )
    return found


def words_of_setting(values: Mapping[str, Any]) -> list[str]:
    """How a setting is written in the name of a row, "alpha=3"."""
    return [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values.items()
    ]


def parse_sweep(
    words: Sequence[str], methods: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Turn "method.name=1,3,10" into the settings of each method.

    Raises:
        ValueError: a method that does not compete, an option that it does not have, a
            value of another kind, or one that comes twice.
    """
    axes: dict[str, dict[str, list[Any]]] = {}
    for text in words:
        target, equals, values = text.partition("=")
        method, dot, name = target.rpartition(".")
        if not equals or not dot or method not in methods:
            raise ValueError(
                f"cannot read the sweep {text!r}; write method.name=1,3,10 with one of "
                f"the methods that compete: {', '.join(methods)}"
            )
        read = [
            parse_options([f"{target}={value}"], FACTORIES).of(method)[name]
            for value in values.split(",")
        ]
        own = axes.setdefault(method, {})
        if name in own or len(set(read)) < len(read):
            raise ValueError(f"the sweep gives a value of {target} twice; give it once")
        own[name] = read
    return {method: grid(own) for method, own in axes.items()}
