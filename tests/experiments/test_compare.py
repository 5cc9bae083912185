"""Comparisons that build on one another, and methods that users bring along."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from commands import over

from experiments import compare
from experiments.compare.config import methods_of
from experiments.compare.contenders import contenders
from experiments.frame import ensembles
from experiments.frame.command import main
from experiments.frame.config import parse
from experiments.frame.options import Options
from experiments.frame.study import Results, configured, read_results, report, run
from unlearn_jax.methods import METHODS
from unlearn_jax.solvers.solution import OUT_OF_STEPS
from unlearn_jax.train.exchange import write_variables

TINY = (
    "--scale smoke --data.limit 200 --model.width 8 --recipe.epochs 1 "
    "--relearn-steps 2 --requests random:20 --seeds.train 1 --oracles 3"
)
MINE = """
from unlearn_jax import tree
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import stateless

def shrink(learner, *, share: float = 0.5):
    def forget(key, variables, request):
        return variables._replace(params=tree.scale(1 - share, variables.params))
    return stateless(forget)
"""


class Finished(NamedTuple):
    folder: Path
    results: Results
    trainings: list[bool]

    @property
    def rows(self):
        return self.results.rows


@contextlib.contextmanager
def counting():
    """Of each ensemble that is asked for, whether it has no members yet."""
    counts = []
    inner = ensembles.train_ensemble

    def counted(folder, *args, **options):
        counts.append(not any(folder.glob("members-*")))
        return inner(folder, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensembles, "train_ensemble", counted)
        yield counts


def finished(results, words, code=0):
    runs = results / "compare"
    before = set(runs.iterdir()) if runs.exists() else set()
    more = words.split() if isinstance(words, str) else words
    given = [*over(TINY.split(), more), "--results", str(results)]
    with counting() as trainings:
        assert run(compare.STUDY, given) == code
    (folder,) = set(runs.iterdir()) - before
    for name in ("tables.md", "tables.tex", "index.html"):
        assert (folder / name).stat().st_size > 200
    return Finished(folder, read_results(folder), trainings)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run in a folder where the others find what it trained and judged."""
    results = tmp_path_factory.mktemp("compared")
    return finished(results, "--methods ssd --save npz")


@pytest.fixture
def beside(first, undrawn):
    """``words -> Finished`` of a run whose results lie beside the first one's."""
    results = first.folder.parents[1]
    return lambda words, code=0: finished(results, words, code)


def test_a_sweep_after_a_first_run_trains_nothing_anew(first, beside):
    assert first.trainings == [True, True]
    preset = compare.presets.presets("digits")["small"].options.of("ssd")["alpha"]
    swept = beside(f"--methods ssd --save npz --sweep ssd.alpha=1,3,{preset}")
    assert swept.trainings == [False, False]
    names = {f"ssd alpha={a:g}" for a in (1, 3, preset)}
    assert set(swept.rows.places("method")) > names
    # The setting that was there already is the same in every digit, its time too.
    ours = [(r.metric, r.value) for r in first.rows.where(method="ssd")]
    again = [
        (r.metric, r.value) for r in swept.rows.where(method=f"ssd alpha={preset:g}")
    ]
    assert ours == again
    assert ours


def test_a_method_of_ones_own_competes_and_its_source_counts(beside, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    words = f"--methods {file}:shrink --options {file}:shrink.share=0.25"
    done = beside(words)
    assert done.rows.value("parameter_change", method="shrink") == pytest.approx(0.25)
    assert str(file) in done.results.run.inputs
    file.write_text(MINE.replace("1 - share", "1 - 2 * share"))
    edited = beside(words)
    assert edited.rows.value("parameter_change", method="shrink") == pytest.approx(0.5)
    assert edited.trainings == [False, False]
    folder = edited.folder
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report(compare.STUDY, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_options_of_one_method_leave_the_presets_of_others_alone():
    presets = compare.presets.presets("digits")
    words = ["--options", "ssd.alpha=7", "scrub.epochs=3"]
    asked = parse(presets, words, prog="compare", text=None).options
    preset = presets["small"].options
    assert asked.of("ssd") == {"alpha": 7.0}
    assert asked.of("scrub") == {**preset.of("scrub"), "epochs": 3}
    others = [name for name in preset if name not in ("ssd", "scrub")]
    assert len(others) > 10
    assert all(asked.of(name) == preset.of(name) for name in others)


def test_tables_say_how_settings_were_chosen():
    """Small data and images without the oracle, nothing of what one gives."""
    told = compare.presets.origin
    (small, paper), (images, published) = (
        [compare.presets.presets(data)[scale] for scale in ("small", "paper")]
        for data in ("digits", "fashion_mnist")
    )
    assert "without the oracle" in told(small)
    assert told(paper) == told(small)
    assert "10,000 images of Fashion-MNIST without the oracle" in told(images)
    assert "published defaults" in told(published)
    changed = small.options.over(Options({"ssd": {"alpha": 1.0}}))
    assert "given" in told(dataclasses.replace(small, options=changed))


def test_a_sweep_of_two_options_is_their_grid():
    words = "--methods scrub --sweep scrub.epochs=1,2 scrub.learning_rate=0.1,0.2"
    config = configured(compare.STUDY, words.split())
    preset = dict(config.options.of("scrub"))
    assert [one.options for one in contenders(config, "classification")] == [
        preset | {"epochs": e, "learning_rate": r} for e in (1, 2) for r in (0.1, 0.2)
    ]


def test_all_stands_for_every_method_that_can_do_the_task():
    able = {
        task: [n for n, entry in METHODS.items() if task in entry.tasks]
        for task in ("classification", "regression")
    }
    for task, names in able.items():
        assert list(methods_of(("all",), task)) == names
    assert "gaussian_amnesiac" not in able["classification"]
    both = methods_of(("mine.py:shrink", "all", "ssd"), "classification")
    assert list(both) == [*able["classification"], "mine.py:shrink"]
    assert methods_of(("scrub", "ssd"), "regression") == ("scrub", "ssd")


@pytest.mark.parametrize("kind", ["npz", pytest.param("orbax", marks=pytest.mark.slow)])
def test_an_unlearned_model_is_saved_and_goes_in_as_an_original(first, beside, kind):
    saving = first if kind == "npz" else beside(f"--methods ssd --save {kind}")
    folder = saving.folder / "models" / "random%3A20"
    names = {path.stem for path in folder.iterdir()}
    assert names == {"original 0-0", "ssd 0-0"}
    (saved,) = folder.glob("ssd*")
    again = beside(["--methods", "ssd", "--original", str(saved)])
    # Oracles are found, originals are neither found nor trained.
    assert again.trainings == [False]
    for split in ("retain", "forget", "test"):
        at = {"metric": "loss", "split": split}
        assert again.rows.value(method="original", **at) == pytest.approx(
            saving.rows.value(method="ssd", **at)
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds.train 2", "1 files of originals for 2 training seeds"),
        ("--methods natural_ascent", "natural_ascent reads a trace"),
        ("--model.width 9", "choose the model and its width"),
    ],
)
def test_an_original_that_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path, words, message
):
    model = compare.setting.build(configured(compare.STUDY, TINY.split())).learner.model
    write_variables(tmp_path / "model.npz", model.init(jax.random.key(0)))
    original = ["--methods", "ssd", "--original", str(tmp_path / "model.npz")]
    given = over([*TINY.split(), *original], words.split())
    with counting() as trainings, pytest.raises(ValueError, match=message):
        run(compare.STUDY, [*given, "--results", str(tmp_path)])
    assert trainings == []


def test_how_a_solver_ended_reaches_the_table(beside, capsys):
    once = "newton_removal.max_steps=1 newton_removal.iterations=1"
    results = beside(f"--methods newton_removal ssd --options {once}")
    rows = results.rows.where(method="newton_removal")
    assert rows.value("solver_failure") == OUT_OF_STEPS
    assert rows.value("solver_steps") == 1
    assert 0 < rows.value("solver_residual") < 1
    assert not results.rows.where("solver_steps", method="ssd")
    assert "solver out of steps" in capsys.readouterr().out


def test_failed_cell_is_named_and_the_exit_code_says_so(
    first, undrawn, monkeypatch, capsys
):
    runs = first.folder.parent
    before = set(runs.iterdir())
    words = "--methods gradient_ascent ssd --options gradient_ascent.learning_rate=1e30"
    given = [*over(TINY.split(), words.split()), "--results", str(runs.parent)]
    monkeypatch.setattr(sys, "argv", ["compare", *given])
    with pytest.raises(SystemExit) as stop:
        main(compare.STUDY)
    assert stop.value.code == 1
    told = capsys.readouterr()
    assert "failed" in told.out
    assert "NaN or infinite" in told.err
    (folder,) = set(runs.iterdir()) - before
    rows = read_results(folder).rows
    assert {r.at["method"] for r in rows if r.failure} == {"gradient_ascent"}
    assert any(r.value is not None for r in rows.where(method="ssd"))


RIGHT = """
import numpy as np

def surest(key, unlearned, references):
    outputs = np.asarray(unlearned.forget.outputs)
    return {"forget": outputs.max(), "test": np.asarray(unlearned.test.outputs).max()}

def broken(key, unlearned, references):
    return 1.0 / 0

def shapeless(key, unlearned, references):
    return 3.0

def unknown(key, unlearned, references):
    return {"all": float("nan")}
"""


def test_a_metric_of_ones_own_has_a_table_and_one_that_fails_is_named(beside, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(RIGHT)
    names = ("surest", "broken", "shapeless", "unknown")
    metrics = " ".join(f"{file}:{name}" for name in names)
    done = beside(f"--methods ssd --metrics {metrics}", code=1)
    assert str(file) in done.results.run.inputs
    for method in ("original", "ssd", "oracle"):
        values = [r.value for r in done.rows.where(metric="surest", method=method)]
        assert len(values) == 2
        assert all(np.isfinite(values))
    failures = {r.metric: r.failure for r in done.rows if r.failure}
    assert set(failures) == {"broken", "shapeless", "unknown"}
    assert "division by zero" in failures["broken"]
    assert "gave float, expected a dict" in failures["shapeless"]
    told = [line for line in done.rows.failures if "'unknown': gave NaN" in line]
    assert any(" ssd " in line for line in told)
    (found,) = compare.show.show(compare.config.Config(), done.results)
    table = next(t for t in found.tables if t.name.endswith("of one's own"))
    assert "surest forget" in table.header


def test_a_metric_of_ones_own_is_refused_before_anything_is_trained(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("accuracy = print\nthree = 3\n")
    for name, sentence in (
        (f"{file}:accuracy", "there is a metric 'accuracy' already"),
        (f"{file}:three", "three is no metric: it cannot be called"),
        (f"{file}:four", "defines no 'four'"),
        ("rmse", "metric 'rmse' is for regression, this data set is a classification"),
    ):
        words = f"{TINY} --metrics {name}".split()
        with pytest.raises(ValueError, match=sentence):
            compare.STUDY.build(configured(compare.STUDY, words))
