"""Who competes: every method with its options, and every setting of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.compare.config import Config, entry_of, methods_of
from experiments.frame.options import Options
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
    check_sweep(config.sweep, methods)
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
        for values in config.sweep.settings(method):
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


def check_sweep(sweep: Options, methods: Sequence[str]) -> None:
    """Refuse a sweep of what does not compete.

    Raises:
        ValueError: the method, and those that compete.
    """
    for name in sweep:
        if name not in methods:
            raise ValueError(
                f"the sweep names {name!r}, which does not compete; choose from "
                f"{', '.join(methods)}"
            )
