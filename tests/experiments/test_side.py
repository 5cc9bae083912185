"""Several runs side by side, and runs for other programs."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from results.fake_folders import FEW, fill, written
from results.fake_records import fake_records, fake_run

from experiments.frame.export import EXPORTS, scalars
from experiments.frame.side import side_by_side
from experiments.frame.study import read_results
from experiments.report import command
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.table import Cell, Table


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        methods = FEW if seed else {k: v for k, v in FEW.items() if k != "ssd"}
        found = fake_records(seed, train=3, unlearn=1, evaluate=1, methods=methods)
        fill(folder, found, id=f"run-{seed}")
    return folders


def lines(text):
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_runs_are_compared_and_nothing_is_written(runs, capsys, tmp_path):
    alone = []
    for folder in runs:
        command([str(folder)])
        alone.append(lines(capsys.readouterr().out))
    before = written(tmp_path)
    assert command([*map(str, runs), "--columns", "accuracy forget", "check"]) == 0
    said = capsys.readouterr().out
    assert "A: run-0" in said
    assert "B: run-1" in said
    head, _, *rows = lines(said)
    titles = (
        "accuracy forget (%) → A",
        "accuracy forget (%) → B",
        "check A",
        "check B",
    )
    assert head == ["method", *titles]
    told = {row[0]: row[1:] for row in rows}
    assert told["ssd"][0] == told["ssd"][2] == "\N{EN DASH}"
    for place, table in enumerate(alone):
        title, _, *own = table
        forget = title.index("accuracy forget (%) →")
        first = own[: next(i for i, row in enumerate(own) if row[0] == "method")]
        for row in first:
            assert told[row[0]][place] == row[forget]
            assert told[row[0]][2 + place] == row[title.index("check")]
            assert "floors (" in row[-1] or row[-1].startswith("the ")
    assert written(tmp_path) == before


def test_what_matters_most_is_compared_by_default(runs, capsys):
    assert command([str(folder) for folder in runs]) == 0
    said = capsys.readouterr().out
    for title in ("check A", "loss attack AUC → B", "parameter change A"):
        assert title in said
    assert "tug-of-war" not in said.partition("- ")[0]


def test_runs_without_a_common_table_or_column_are_refused(runs):
    table = Table("a", "", ("name", "x"), ((Cell("1"), Cell("2")),))
    other = table._replace(name="b")
    with pytest.raises(ValueError, match="no table in common"):
        side_by_side([(fake_run(), [table]), (fake_run(), [other])])
    with pytest.raises(ValueError, match="two runs or more"):
        side_by_side([(fake_run(), [table])])
    with pytest.raises(ValueError, match="no column of the runs begins with y"):
        side_by_side([(fake_run(), [table]), (fake_run(), [table])], ["y"])


def test_rows_of_one_name_are_told_apart_by_more_columns():
    rows = (("a", "1", "x"), ("a", "2", "y"))
    table = Table("t", "", ("k", "l", "v"), tuple(tuple(map(Cell, r)) for r in rows))
    (joined,) = side_by_side([(fake_run(), [table]), (fake_run(), [table])])
    assert joined.header == ("k", "l", "v A", "v B")
    assert [cell.text for cell in joined.rows[1]] == ["a", "2", "y", "y"]


def test_every_number_is_a_scalar_of_its_own():
    at = {"method": "ssd", "train_seed": 3, "split": "", "evaluate_seed": 0}
    rows = Rows(
        [
            Row("accuracy", 1.0, "%", at),
            Row("accuracy", 2.0, "%", at | {"train_seed": 4}),
            Row("accuracy", 3.0, "%", at | {"split": "test"}),
            Row("accuracy", None, "%", at | {"split": "retain"}, "it failed"),
            Row("accuracy", 4.0, "%", at),
            Row("seconds", 5.0, "s"),
        ]
    )
    assert list(scalars(rows)) == [
        ("accuracy/ssd/evaluate_seed=0", 3, 1.0),
        ("accuracy/ssd/evaluate_seed=0", 4, 2.0),
        ("accuracy/ssd/test/evaluate_seed=0", 3, 3.0),
        ("accuracy/ssd/evaluate_seed=0/1", 3, 4.0),
        ("seconds", 0, 5.0),
    ]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_missing_package_is_one_line_that_names_the_extra(runs, monkeypatch, kind):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=rf"unlearn_jax\[{kind}\]"):
        command([str(runs[0]), "--export", kind])
    assert not (runs[0] / kind).exists()


def test_an_unknown_export_is_refused(runs):
    with pytest.raises(ValueError, match="choose from tensorboard, wandb"):
        command([str(runs[0]), "--export", "excel"])


def package(name):
    """Skip by name where an extra is not installed."""
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is missing")


@package("tensorboardX")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_back_what_was_measured(runs):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    for _ in range(2):  # a second export replaces the first
        assert command([str(runs[0]), "--export", "tensorboard"]) == 0
    (file,) = (runs[0] / "tensorboard").iterdir()
    content, found = file.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        body = content[12 : 12 + size]
        assert masked_crc32c(body) == int.from_bytes(
            content[12 + size : 16 + size], "little"
        )
        event = Event.FromString(body)
        found += [
            (value.tag, event.step, value.simple_value)
            for value in event.summary.value
            if value.HasField("simple_value")
        ]
        content = content[16 + size :]
    expected = list(scalars(read_results(runs[0]).rows))
    assert len(found) == len(expected)
    for told, measured in zip(found, expected, strict=True):
        assert told[1] == measured[1]
        assert told[2] == pytest.approx(measured[2], rel=1e-6)


@package("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_the_run_offline(runs, monkeypatch):
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(runs[0].parent / "wandb-own"))
    assert command([str(runs[0]), "--export", "wandb"]) == 0
    files = [p for p in (runs[0] / "wandb").rglob("*.wandb") if p.is_file()]
    (file,) = files
    content = file.read_bytes()
    assert b"accuracy/random 5%/newton" in content
    assert json.dumps("run-0").encode()[1:-1] in content
    assert Path(file).stat().st_size > 1000
