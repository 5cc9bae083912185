"""Train, unlearn with everybody, compare distributions."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.dmm.contenders import Contender
from experiments.dmm.judge import judged, scored
from experiments.dmm.models import Case, train_all
from experiments.dmm.setting import Setting
from experiments.dmm.unlearn import Answers, Unlearner
from experiments.frame.bench import Bench
from experiments.frame.ensembles import training_words
from unlearn_jax.results.rows import Row

ORIGINAL, ORACLE, CONTROL = "original", "oracle", "oracle vs oracle"


def measure(bench: Bench, setting: Setting) -> Iterator[Row]:
    """Every number, request by request."""
    config, trained = setting.config, train_all(bench, setting)
    half = config.originals
    words = {**training_words(config), "seed": config.seed, "study": "dmm"}
    unlearn = Unlearner(setting, trained, bench.place("traces", words))

    @functools.lru_cache
    def answers(number: int, kind: str) -> Answers:
        case = trained.cases[number]
        first = trained.originals[:1] * half
        models = {
            ORIGINAL: first if config.one_original else trained.originals,
            ORACLE: case.oracles[:half],
            CONTROL: case.oracles[half:],
        }
        return unlearn.answers(models[kind], case)

    def numbers(number: int, after: Answers) -> Iterator[Row]:
        split, truth = trained.cases[number].split, answers(number, ORACLE)
        before = None if config.one_original else answers(number, ORIGINAL).margins
        yield from judged(split, after.margins, truth.margins, before)
        yield from scored(split, after, truth)

    def contended(number: int, contender: Contender) -> Iterator[Row]:
        case = trained.cases[number]
        after, costs = unlearn(contender, case)
        yield from numbers(number, after)
        for name, cost in costs.items():
            yield Row(f"{name}_seconds", cost.seconds, "s")
            yield Row(f"{name}_cpu_seconds", cost.cpu_seconds, "s")
        if contender.price is not None:
            yield Row("gradients", float(contender.price(*case.sizes)))

    found: list[list[Row]] = []
    kept = functools.partial(_kept, bench, setting)
    for number, case in enumerate(trained.cases):
        found.append(list(_sizes(case)))
        for kind in (ORIGINAL, CONTROL):
            make = lambda n=number, k=kind: numbers(n, answers(n, k))  # noqa: E731
            found[number] += kept(case, kind, "", {}, make)
    cells = list(itertools.product(setting.contenders, enumerate(trained.cases)))
    with bench.progress("unlearn", len(cells)) as advance:
        for one, (number, case) in cells:
            make = functools.partial(contended, number, one)
            found[number] += kept(case, *one[:3], make)
            advance(1)
    yield from itertools.chain(*found)


def _kept(
    bench: Bench,
    setting: Setting,
    case: Case,
    family: str,
    words: str,
    known_by: Mapping[str, Any],
    make: Callable[[], Iterator[Row]],
) -> Iterator[Row]:
    """Rows of one contender on one request, found again by every run that asks so."""
    config = setting.config
    judges: dict[str, Any] = {
        "originals": config.originals,
        "points": config.points,
        "one_original": config.one_original,
    }
    decides = {**training_words(setting.config), **case.known_by, **judges, **known_by}
    at = {"request": case.name, "method": family, "setting": words}
    for row in bench.rows(f"judged/{family}", make, known_by=decides):
        yield row._replace(at={**at, **row.at})


def _sizes(case: Case) -> Iterator[Row]:
    for split, count in zip(("forget", "retain"), case.sizes, strict=True):
        yield Row("examples", float(count), "1", {"request": case.name, "split": split})
