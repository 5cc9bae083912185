"""The trials of each method, an equal number of them; refusals."""

from typing import Any

from experiments.compare import setting as compare
from experiments.compare.config import FACTORIES, entry_of, methods_of
from experiments.compare.contenders import Contender, check_sweep, words_of_setting
from experiments.compare.setting import Setting, fitting_tests
from experiments.frame.options import hyperparameters
from experiments.tune.config import Config
from experiments.tune.grids import beginning, settings
from experiments.tune.halves import in_halves

PRESET, DEFAULT, BEGINNING = "preset", "default", "as trained"


def build(config: Config) -> Setting:
    """Load, check and refuse, as a comparison does, with trials for contenders.

    Raises:
        ValueError: as for a comparison; a task that is no classification, fewer
            settings than trials, or too few test examples to keep half for validation.
    """
    if config.save != "none":
        raise ValueError(
            f"save is {config.save!r}, but models of trials are not written; run "
            "compare with the settings that were chosen"
        )
    made = compare.build(config, lambda _, task: trials(config, task))
    for asked in made.asked:
        masks = fitting_tests(asked, made.dataset)
        fewest = min(int(half.sum()) for mask in masks for half in in_halves(mask))
        if fewest < 4:
            raise ValueError(
                f"request {asked.text!r} leaves {fewest} test examples in one half, "
                "expected at least 4: one half is for validation, the other for the "
                "oracle's judgement; take another request or more data"
            )
    return made


def trials(config: Config, task: str) -> list[Contender]:
    """``config.trials`` settings of each method: published default, grid.

    The preset has a trial of its own behind them, unless it is one of them: no
    criterion chooses it there.

    Raises:
        ValueError: a regression, a method that cannot do it, or fewer settings.
    """
    if task != "classification":
        raise ValueError(
            f"the criteria are accuracies, this data set is a {task}; take one of "
            "classes"
        )
    methods = methods_of(config.methods, task)
    check_sweep(config.sweep, methods)
    found = []
    for method in methods:
        entry = entry_of(method)
        preset = dict(config.options.of(method))
        named: dict[str, dict[str, Any]] = {DEFAULT: {}}
        if method in config.sweep:
            first, begun = PRESET, preset
            changes = config.sweep.settings(method)
        else:
            first, begun = BEGINNING, beginning(method, config.recipe)
            changes = settings(method, begun)
        named[first] = begun
        for changed in changes:
            named[" ".join(words_of_setting(changed))] = begun | changed
        different = _different(method, named)
        if len(different) < config.trials:
            raise ValueError(
                f"{method} has {len(different)} different settings for "
                f"{config.trials} trials; give it more by --sweep {method}.option=1,2 "
                "or lower --trials"
            )
        within = {name: different[name] for name in list(different)[: config.trials]}
        for name, options in _with_preset(method, within, preset).items():
            found.append(Contender(f"{method} {name}", method, entry, options))
    return found


def trial_of(contender: Contender) -> str:
    """Which trial of its method a contender is, "alpha=3"."""
    return contender.name.removeprefix(f"{contender.method} ")


def _different(
    method: str, named: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Settings of which no two mean the same."""
    seen: list[dict[str, Any]] = []
    kept = {}
    for name, options in named.items():
        if _full(method, options) not in seen:
            seen.append(_full(method, options))
            kept[name] = options
    return kept


def _with_preset(
    method: str, named: dict[str, dict[str, Any]], preset: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The same settings, that of the preset under its name; at the end if it is new."""
    full = _full(method, preset)
    told = {
        PRESET if _full(method, options) == full else name: options
        for name, options in named.items()
    }
    return {**told, PRESET: preset}


def _full(method: str, options: dict[str, Any]) -> dict[str, Any]:
    known = hyperparameters(FACTORIES[method])
    return {name: known[name].default for name in known} | options
