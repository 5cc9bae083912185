"""The console command and the list of what there is, and of what was run."""

import io
import sys

import pytest
from results.fake_records import fake_run

from experiments import __main__ as console
from experiments.frame.progress import progress
from experiments.list import command as list_command
from experiments.list import (
    laid_out,
    methods_table,
    metrics_table,
    requests_table,
    runs_table,
)
from experiments.studies import STUDIES
from unlearn_jax.results.run import write_run


def said(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["unlearn-jax", *words])
    code = 0
    try:
        console.run()
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def test_the_console_command_knows_every_study(monkeypatch, capsys):
    code, told = said(monkeypatch, capsys)
    assert code == 0
    assert all(name in told.out for name in (*STUDIES, "list", "report"))
    code, told = said(monkeypatch, capsys, "compair")
    assert code == 2
    assert "'compair'" in told.err
    code, told = said(monkeypatch, capsys, "spectrum", "--probes", "1")
    assert code == 2
    assert told.err == "error: probes is 1; expected at least 2\n"


def test_studies_and_requests_are_listed(capsys):
    assert list_command(["studies"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in STUDIES)
    assert list_command(["requests"]) == 0
    out = capsys.readouterr().out
    assert "clustered:6:100" in out
    assert "highest:100:scores.npy" in out  # and no picture of a hundred


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_list_breaks_no_word_and_no_line(width):
    from rich.console import Console

    for rows in (requests_table(), methods_table(), metrics_table()):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(laid_out("topic", rows, width))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        printed = " ".join(lines).replace(";", "").split()
        given = " ".join(cell for row in rows[1:] for cell in row)
        assert {*given.replace(";", "").split()} <= {*printed}


def test_runs_are_found_by_their_words(tmp_path):
    for number, (name, data) in enumerate((("first", "digits"), ("second", "faces"))):
        config = {"name": name, "model": {"name": "mlp"}, "methods": ["ssd", "scrub"]}
        run = fake_run(id=f"2026010{number}T000000-ab12cd", config=config, dataset=data)
        write_run(tmp_path / run.experiment / run.id, run)
    assert len(runs_table(tmp_path, [])) == 3
    (_, found) = runs_table(tmp_path, ["second", "ssd"])
    assert found[1:4] == ("compare", "second", "faces")
    assert len(runs_table(tmp_path, ["second", "digits"])) == 1
    (tmp_path / "compare" / "20260101T000000-ab12cd" / "run.json").write_text("{")
    damaged = runs_table(tmp_path, [])
    assert any("damaged" in row[1] for row in damaged)


def test_full_is_about_printing_and_no_setting(monkeypatch):
    from experiments.frame import study
    from experiments.spectrum import STUDY

    called = []
    monkeypatch.setattr(study, "run_config", lambda *a, **k: called.append((a, k)) or 0)
    assert study.run(STUDY, ["--full", "--scale", "smoke"]) == 0
    (((_, config), words),) = called
    assert config == STUDY.presets(STUDY.data)["smoke"]
    assert words["full"] is True


def test_a_bar_shows_a_name_as_it_is(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("highest:100:scores.npy[1]", 1.0) as advance:
        advance(1.0)
    assert "highest:100:scores.npy[1]" in sys.stderr.getvalue()
