"""What a study is, and what a run lends it; how one is run from a command line."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from experiments.frame.bench import Bench
from experiments.frame.config import ConfigT, parse, restored, word_after
from experiments.frame.findings import Finding, print_findings, write_findings
from experiments.frame.plugins import user_file
from experiments.frame.problem import data_digest
from experiments.frame.processes import TOLD, processes_told
from experiments.frame.rules import Rule, check_rules
from unlearn_jax.data.batch import Dataset
from unlearn_jax.parallel.processes import ALONE, joined
from unlearn_jax.parallel.watch import Links
from unlearn_jax.results.record import RecordError
from unlearn_jax.results.resume import open_run
from unlearn_jax.results.rows import (
    ROWS_FILE,
    Row,
    Rows,
    read_rows,
    write_rows,
)
from unlearn_jax.results.run import RUN_FILE, Run, new_run, read_run, write_run
from unlearn_jax.storage.arrays import read_arrays, write_arrays
from unlearn_jax.storage.checksum import file_digest

ARRAYS_FILE = "arrays.npz"
FULL = "--full"
_MAY_BE_BROUGHT = ("model", "data")
"""Parts of a configuration whose name may be that of a user's own file."""


class Built(Protocol):
    """What ``build`` makes: everything loaded, checked and drawn, nothing trained."""

    @property
    def dataset(self) -> Dataset | None:
        """The data, as the study uses them; None, and a ``title``, without any."""
        ...


SettingT = TypeVar("SettingT", bound=Built)


class Results(NamedTuple):
    """Value: what a run measured; all that tables and figures are made from.

    Attributes:
        run: Where it came from.
        rows: Every number.
        arrays: What figures need beside numbers: histograms' samples, spectra.
    """

    run: Run
    rows: Rows
    arrays: Mapping[str, np.ndarray]


class Study(NamedTuple, Generic[ConfigT, SettingT]):
    """Description: a question, and how it is answered.

    A study knows nothing of files, locks, command lines or the syntax of tables.

    Attributes:
        name: Of the command, ``python -m experiments.NAME``.
        text: Question, command, what to expect and whence; the package's docstring.
        presets: Configurations by scale, for a data set's name and, where there is a
            ``model``, a model's; the first is the default one.
        build: Loads, draws and refuses; trains nothing.
        measure: The science: every number, in a fixed order.
        show: Rows to tables and figures, and nothing else: ``report`` calls it again.
        rules: Refusals that need no data.
        files: What a configuration only names: files whose contents belong to the run,
            beside a model and data of one's own.
        x64: Whether it computes in 64-bit floats.
        data: Name of the data set that presets are for by default.
        model: Name of the model that they are for by default; empty if they are for
            any.
    """

    name: str
    text: str | None
    presets: Callable[..., Mapping[str, ConfigT]]
    build: Callable[[ConfigT], SettingT]
    measure: Callable[[Bench, SettingT], Iterable[Row]]
    show: Callable[[ConfigT, Results], list[Finding]]
    rules: tuple[Rule, ...] = ()
    files: Callable[[ConfigT], Iterable[Path]] | None = None
    x64: bool = False
    data: str = "digits"
    model: str = ""

    @property
    def title(self) -> str:
        """The first line of the text."""
        return (self.text or self.name).strip().splitlines()[0]

    @property
    def question(self) -> str:
        """The text without its technical lines: title and question."""
        return (self.text or "").partition("\nCommand:")[0].strip()


def run(study: Study[Any, Any], arguments: Sequence[str]) -> int:
    """Run a study to its end, or go on with a run of it that was interrupted.

    Returns:
        Exit code: 1 if any number is missing, else 0.

    Raises:
        ValueError: something asked for cannot be done; nothing was trained.
        StorageError: the disk cannot take the results; what is finished is kept.
    """
    told, words = processes_told(word for word in arguments if word != FULL)
    config = configured(study, words)
    with joined(told) as links:
        return run_config(study, config, full=FULL in arguments, links=links)


def configured(study: Study[ConfigT, Any], arguments: Sequence[str]) -> ConfigT:
    """What a command line asks of a study, checked against its rules.

    Raises:
        ValueError: a rule is broken.
    """
    names = [word_after(arguments, "--data.name") or study.data]
    if study.model:
        names.append(word_after(arguments, "--model.name") or study.model)
    config = parse(
        study.presets(*names),
        arguments,
        prog=f"python -m experiments.{study.name}",
        text=f"{study.text or ''}\n{FULL} prints every column on a terminal. {TOLD}",
    )
    check_rules(config, study.rules)
    return config


def run_config(
    study: Study[Any, Any], config: Any, *, full: bool = False, links: Links = ALONE
) -> int:
    """:func:`run` for a configuration that is made in Python.

    Args:
        study: What is run.
        config: How.
        full: Print every column.
        links: To the other processes that run the same: see ``frame.bench``.
    """
    with jax.enable_x64(study.x64):
        check_rules(config, study.rules)
        setting = study.build(config)
        wanted = described(study, config, setting)
        if links.index == 0:
            return _run_first(study, config, setting, wanted, full, links)
        for _ in study.measure(Bench(None, config.results, wanted, links), setting):
            pass
        return 0


def _run_first(
    study: Study[Any, Any],
    config: Any,
    setting: Built,
    wanted: Run,
    full: bool,
    links: Links,
) -> int:
    start = time.perf_counter()
    store, begun = open_run(config.results, wanted)
    with store:
        bench = Bench(store, config.results, begun, links)
        rows = Rows(study.measure(bench, setting))
        write_arrays(store.folder / ARRAYS_FILE, bench.arrays)
        write_rows(store.folder / ROWS_FILE, rows)
        done = begun._replace(seconds=time.perf_counter() - start, records=len(rows))
        findings = study.show(config, Results(done, rows, bench.arrays))
        write_findings(store.folder, done, findings, study.question)
        write_run(store.folder, done)
    return told(store.folder, findings, rows, full=full)


def described(study: Study[Any, Any], config: Any, setting: Built) -> Run:
    """The run of a configuration: what it is known by, before it begins."""
    files = study.files(config) if study.files is not None else ()
    names = [getattr(getattr(config, part, ""), "name", "") for part in _MAY_BE_BROUGHT]
    brought = [file for name in names if (file := user_file(name)) is not None]
    inputs = {str(file): file_digest(Path(file)) for file in (*files, *brought)}
    data = setting.dataset
    if data is not None:
        inputs = {"data": data_digest(data), **inputs}
    title = getattr(setting, "title", "") if data is None else data.title
    return new_run(study.name, config.scale, config, dataset=title, inputs=inputs)


def told(
    folder: Path, findings: Sequence[Finding], rows: Rows, *, full: bool = False
) -> int:
    """Print what was found, what failed, and where the page lies; the exit code."""
    print_findings(findings, full=full)
    reasons = {row.failure for row in rows if row.failure}
    missing = [
        line
        for finding in findings
        for shown in finding.tables
        for line in shown.failures
        if line.partition(": ")[2] not in reasons
    ]
    failures = [*rows.failures, *missing]
    if failures:
        print(f"{len(failures)} missing or failed:", file=sys.stderr)
        for line in failures:
            print(f"  {line}", file=sys.stderr)
    print(f"tables, figures and page: {folder / 'index.html'}", file=sys.stderr)
    return 1 if failures else 0


def read_results(folder: Path) -> Results:
    """What a finished run wrote.

    Raises:
        FileNotFoundError: no such folder, no run or no rows in it.
        RecordError: a damaged file, by name and line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    path = folder / ROWS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no rows in {folder}: {ROWS_FILE} is written when a run is "
            "finished; start it again with its own command, it goes on where it was"
        )
    for name in (RUN_FILE, ARRAYS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}; put it back from a copy, or delete "
                f"{ROWS_FILE} and run the same command again"
            )
    rows, found = read_rows(path), read_run(folder)
    if found.records not in (None, len(rows)):
        raise RecordError(
            f"{path} holds {len(rows)} rows, but the run wrote {found.records}; put "
            "the file back from a copy, or delete it and run the same command again"
        )
    try:
        arrays = read_arrays(folder / ARRAYS_FILE)
    except ValueError as error:
        raise RecordError(str(error)) from None
    return Results(found, rows, arrays)


def report(
    study: Study[Any, Any], folder: Path, columns: Sequence[str] = ()
) -> tuple[Results, list[Finding]]:
    """Make tables, figures and page of a finished run anew: :func:`shown`, written.

    Nothing is trained. ``columns``: of the LaTeX, see :func:`write_findings`.
    """
    results, findings = shown(study, folder)
    write_findings(Path(folder), results.run, findings, study.question, columns)
    return results, findings


def shown(study: Study[Any, Any], folder: Path) -> tuple[Results, list[Finding]]:
    """Tables and figures of a finished run, from what it wrote.

    Raises:
        FileNotFoundError: no such run, or not finished.
        RecordError: a damaged file.
        ValueError: the run is of another version of the study.
    """
    results = read_results(folder)
    kind = type(next(iter(study.presets(study.data).values())))
    config = restored(kind, results.run.config)
    with jax.enable_x64(results.run.x64):
        return results, study.show(config, results)
