import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from results.fake_records import METHODS, fake_losses, fake_records, fake_run

from experiments.report import command, make_report, write_report
from unlearn_jax.results.record import RecordError, write_records
from unlearn_jax.results.run import write_run
from unlearn_jax.storage.arrays import write_arrays

FEW = {name: METHODS[name] for name in ("original", "ssd", "newton", "oracle")}


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path, [*records(), *records(request="class:3")])
    write_arrays(tmp_path / "arrays.npz", fake_losses(methods=FEW, seeds=2))
    return tmp_path


def records(**options):
    return fake_records(train=3, unlearn=1, evaluate=1, methods=FEW, **options)


def fill(folder, rows):
    write_run(folder, fake_run())
    write_records(folder / "records.jsonl", rows)


def test_everything_is_written_for_every_request(folder, capsys):
    assert command([str(folder)]) == 0
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    kinds = {
        f"figures/{stem}.{suffix}"
        for stem in (
            "1-mlp-random-5-gap",
            "1-mlp-random-5-cost",
            "1-mlp-random-5-losses",
            "2-mlp-class-3-gap",
            "2-mlp-class-3-cost",
        )
        for suffix in ("pdf", "png", "csv")
    }
    texts = {"tables.md", "tables.tex", "tables.csv", "summary.csv", "index.html"}
    inputs = {"run.json", "records.jsonl", "arrays.npz"}
    assert names == kinds | texts | inputs
    out = capsys.readouterr().out
    assert out.rstrip() == (folder / "tables.md").read_text().rstrip()
    assert "Request: class:3" in out
    assert (folder / "index.html").read_text().count("<img") == 5


def test_records_are_read_and_never_changed(folder):
    before = (folder / "records.jsonl").read_bytes()
    make_report(folder, "markdown")
    first = (folder / "tables.md").read_bytes()
    make_report(folder, "markdown")
    assert (folder / "records.jsonl").read_bytes() == before
    assert (folder / "tables.md").read_bytes() == first


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("markdown", {"tables.md"}),
        ("latex", {"tables.tex"}),
        ("csv", {"tables.csv", "summary.csv"}),
    ],
)
def test_one_format_writes_that_alone(folder, kind, names):
    report = make_report(folder, kind)
    assert {path.name for path in report.files} == names
    assert all(path.is_file() for path in report.files)


def test_the_summary_holds_every_metric_as_numbers(folder):
    make_report(folder, "csv")
    rows = list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text())))
    assert {row["metric"] for row in rows} >= {"accuracy", "chance", "mia_lira"}
    row = next(
        r
        for r in rows
        if (r["method"], r["metric"], r["split"]) == ("ssd", "accuracy", "test")
    )
    assert row["train_seeds"] == "3"
    assert float(row["gap_low"]) <= float(row["gap"]) <= float(row["gap_high"])


def test_a_failure_is_listed_and_sets_the_exit_code(tmp_path, capsys):
    rows = [
        r._replace(value=None, failure="solver diverged")
        if (r.method, r.metric) == ("newton", "agreement")
        else r
        for r in records()
    ]
    fill(tmp_path, [r for r in rows if (r.method, r.metric) != ("ssd", "mia_loss")])
    assert write_report(tmp_path, "markdown") == 1
    err = capsys.readouterr().err
    assert "newton, agreement test: solver diverged" in err
    assert "ssd, loss attack: not recorded" in err


@pytest.mark.parametrize("case", ["no folder", "no records", "empty", "no run"])
def test_nothing_to_report_is_one_sentence(tmp_path, capsys, case):
    folder = tmp_path / "run"
    if case != "no folder":
        folder.mkdir()
    if case == "empty":
        fill(folder, [])
    if case == "no run":
        write_records(folder / "records.jsonl", records())
    assert command([str(folder)]) == 2
    err = capsys.readouterr().err
    assert str(folder) in err
    assert err.count("\n") == 1


def test_records_that_were_lost_are_told(folder, capsys):
    rows = records()
    fill(folder, rows)
    write_run(folder, fake_run(records=len(rows)))
    make_report(folder, "csv")
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    assert command([str(folder)]) == 2
    err = capsys.readouterr().err
    assert f"holds {len(rows) - 2} records, but the run wrote {len(rows)}" in err
    assert len(err.splitlines()) == 1


def test_damaged_files_are_named(folder, capsys):
    (folder / "arrays.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(RecordError, match=r"arrays\.npz"):
        make_report(folder)
    with (folder / "records.jsonl").open("a") as file:
        file.write("{")
    assert command([str(folder)]) == 2
    assert "records.jsonl, line" in capsys.readouterr().err


def test_the_module_runs_as_a_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.report", str(folder), "--format", "csv"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.startswith("**What it does.")
    assert done.stderr == ""
