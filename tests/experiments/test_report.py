import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from results.fake_folders import CONFIG, FEW, fill, written
from results.fake_records import fake_losses, fake_records, fake_run, rows_of

from experiments.frame.study import report as reproduce
from experiments.report import command
from experiments.studies import STUDIES
from unlearn_jax.results.record import RecordError
from unlearn_jax.results.rows import write_rows
from unlearn_jax.results.run import write_run
from unlearn_jax.storage.arrays import write_arrays


@pytest.fixture
def folder(tmp_path):
    """A run of two requests."""
    fill(tmp_path, [*records(), *records(request="class:3")])
    write_arrays(tmp_path / "arrays.npz", fake_losses(methods=FEW, seeds=2))
    return tmp_path


@pytest.fixture
def short(tmp_path):
    """A run of one request, of whose losses nothing was kept."""
    fill(tmp_path, records())
    return tmp_path


def records(**options):
    return fake_records(train=3, unlearn=1, evaluate=1, methods=FEW, **options)


def test_everything_is_written_for_every_request_and_again_to_the_byte(folder, capsys):
    assert command([str(folder)]) == 0
    kinds = {
        f"figures/{stem}.{suffix}"
        for stem in (
            "1-mlp-random-5-gap",
            "1-mlp-random-5-price",
            "1-mlp-random-5-losses",
            "2-mlp-class-3-gap",
            "2-mlp-class-3-price",
        )
        for suffix in ("pdf", "png", "csv")
    }
    tables = {
        f"tables/{stem} {name}.csv"
        for stem in ("1-mlp-random-5", "2-mlp-class-3")
        for name in ("what it does", "can one tell", "what it costs")
    }
    texts = {"tables.md", "tables.tex", "summary.csv", "index.html"}
    inputs = {"run.json", "rows.jsonl", "arrays.npz"}
    assert set(written(folder)) == kinds | tables | texts | inputs
    out = capsys.readouterr().out
    assert out.rstrip() == (folder / "tables.md").read_text().rstrip()
    assert "Request: class:3" in out
    page = (folder / "index.html").read_text()
    assert page.count("<img") == 5
    assert "which method leaves the model that retraining would have given" in page
    # A second report changes no byte.
    before = written(folder)
    command([str(folder)])
    assert written(folder) == before


def test_the_summary_holds_every_metric_as_numbers(short):
    reproduce(STUDIES["compare"], short)
    rows = list(csv.DictReader(io.StringIO((short / "summary.csv").read_text())))
    assert {row["metric"] for row in rows} >= {"accuracy", "chance", "mia_lira"}
    row = next(
        r
        for r in rows
        if (r["method"], r["metric"], r["split"]) == ("ssd", "accuracy", "test")
    )
    assert row["train_seeds"] == "3"
    assert float(row["gap_low"]) <= float(row["gap"]) <= float(row["gap_high"])


def test_a_failure_is_listed_and_sets_the_exit_code(tmp_path, capsys):
    found = [
        r._replace(value=None, failure="solver diverged")
        if (r.method, r.metric) == ("newton", "agreement")
        else r
        for r in records()
    ]
    fill(tmp_path, [r for r in found if (r.method, r.metric) != ("ssd", "mia_loss")])
    assert command([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "agreement: solver diverged" in said.err
    assert "ssd, loss attack: not recorded" in said.err


@pytest.mark.parametrize("case", ["no folder", "no rows", "no run", "another study"])
def test_nothing_to_report_is_one_sentence(tmp_path, case):
    folder = tmp_path / "run"
    if case != "no folder":
        folder.mkdir()
    if case == "no run":
        write_rows(folder / "rows.jsonl", rows_of(records()))
    if case == "another study":
        fill(folder, records(), experiment="mine")
    before = written(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match="run") as told:
        command([str(folder)])
    assert len(str(told.value).splitlines()) == 1
    assert written(tmp_path) == before


def test_a_run_of_another_version_is_told(folder):
    old = fake_run(config=CONFIG | {"alpha": 3})
    write_run(folder, old)
    with pytest.raises(ValueError, match="not one of this version's"):
        command([str(folder)])


def test_rows_that_were_lost_are_told(folder):
    path = folder / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(RecordError, match=f"holds {len(lines) - 2} rows"):
        command([str(folder)])


def test_damaged_files_are_named(folder):
    (folder / "arrays.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(RecordError, match=r"arrays\.npz"):
        command([str(folder)])
    with (folder / "rows.jsonl").open("a") as file:
        file.write("{")
    with pytest.raises(RecordError, match=r"rows\.jsonl, line"):
        command([str(folder)])


@pytest.mark.parametrize("name", ["arrays.npz", "run.json"])
def test_a_file_that_is_gone_is_told_and_nothing_is_written(folder, name):
    (folder / name).unlink()
    before = written(folder)
    with pytest.raises(FileNotFoundError, match=f"no {name} in .* from a copy, or"):
        command([str(folder)])
    assert written(folder) == before


def test_the_module_runs_as_a_command(short):
    root = Path(__file__).resolve().parents[2]
    command_line = [sys.executable, "-m", "experiments.report"]
    done = subprocess.run(
        [*command_line, str(short)], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert "**What it does." in done.stdout
    wrong = subprocess.run(
        [*command_line, "nowhere"], capture_output=True, text=True, cwd=root
    )
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1


def test_latex_has_the_columns_that_were_asked_for(short):
    assert command([str(short), "--columns", "accuracy forget", "check"]) == 0
    text = (short / "tables.tex").read_text()
    assert "accuracy" in text
    assert "gap" not in text.partition(r"\bottomrule")[0]
    before = written(short)
    with pytest.raises(ValueError, match="no column begins with nonsense"):
        command([str(short), "--columns", "nonsense"])
    assert written(short) == before
