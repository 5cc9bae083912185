"""The trials of each method, an equal number of them; refusals."""

from typing import Any

from experiments.compare import setting as compare
from experiments.compare.config import FACTORIES, entry_of, methods_of
from experiments.compare.contenders import Contender, parse_sweep, words_of_setting
from experiments.compare.setting import Setting, fitting_tests
from experiments.frame.options import hyperparameters
from experiments.tune.config import Config
from experiments.tune.grids import settings
from experiments.tune.halves import in_halves

PRESET, DEFAULT = "preset", "default"


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
    """``config.trials`` settings of each method: preset, published default, grid.

    Raises:
        ValueError: a regression, a method that cannot do it, or fewer settings.
    """
    if task != "classification":
        raise ValueError(
            f"the criteria are accuracies, this data set is a {task}; take one of "
            "classes"
        )
    methods = methods_of(config.methods, task)
    swept = parse_sweep(config.sweep, methods)
    found = []
    for method in methods:
        entry = entry_of(method)
        preset = dict(config.options.of(method))
        named: dict[str, dict[str, Any]] = {PRESET: preset, DEFAULT: {}}
        for changed in swept.get(method) or settings(method, preset):
            named[" ".join(words_of_setting(changed))] = preset | changed
        different = _different(method, named)
        if len(different) < config.trials:
            raise ValueError(
                f"{method} has {len(different)} different settings for "
                f"{config.trials} trials; give it more by --sweep {method}.option=1,2 "
                "or lower --trials"
            )
        found += [
            Contender(f"{method} {name}", method, entry, different[name])
            for name in list(different)[: config.trials]
        ]
    return found


def trial_of(contender: Contender) -> str:
    """Which trial of its method a contender is, "alpha=3"."""
    return contender.name.removeprefix(f"{contender.method} ")


def _different(
    method: str, named: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Settings of which no two mean the same."""
    known = hyperparameters(FACTORIES[method])
    defaults = {name: parameter.default for name, parameter in known.items()}
    seen: list[dict[str, Any]] = []
    kept = {}
    for name, options in named.items():
        if defaults | options not in seen:
            seen.append(defaults | options)
            kept[name] = options
    return kept
