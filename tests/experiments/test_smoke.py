"""Each command end to end, as a user types it."""

import pytest
from commands import finish

from unlearn_jax.data import DATASETS
from unlearn_jax.methods import METHODS
from unlearn_jax.models import MODELS
from unlearn_jax.results.rows import read_rows
from unlearn_jax.results.run import read_run

SMALL = (
    "--scale smoke --data.limit 200 --model.width 8 --recipe.epochs 2 "
    "--seeds.train 1 --oracles 3 --relearn-steps 2"
).split()


def only_run(results, experiment):
    (folder,) = (results / experiment).iterdir()
    return folder


def test_unlearn_writes_records_tables_figures_and_a_page(tmp_path):
    words = ["ssd", "--method.alpha", "2", *SMALL, "--results", str(tmp_path)]
    code, out, err = finish("unlearn", words)
    assert code == 0, err
    folder = only_run(tmp_path, "unlearn")
    run = read_run(folder)
    assert run.scale == "custom"
    assert run.seconds is not None
    assert run.config["options"]["ssd"]["alpha"] == 2.0
    rows = read_rows(folder / "rows.jsonl")
    assert set(rows.places("method")) == {
        "original",
        "ssd",
        "oracle",
        "oracle vs oracle",
    }
    assert all(r.value is not None or r.metric.startswith("prepare") for r in rows)
    assert "oracle vs oracle" in out
    assert "Digits" in out
    for name in ("tables.md", "tables.tex", "summary.csv", "index.html"):
        assert (folder / name).stat().st_size > 500
    assert list((folder / "figures").glob("*.png"))
    assert list((folder / "figures").glob("*.pdf"))


@pytest.mark.slow
def test_sub_class_request_on_coarse_labels(tmp_path):
    words = ["--data.name", "digits_coarse", *SMALL, "--methods", "finetune"]
    code, out, err = finish("compare", [*words, "--results", str(tmp_path)])
    assert code == 0, err
    assert "sub_class:3" in out.replace("\\", "")


@pytest.mark.slow
def test_regression_from_the_same_command(tmp_path):
    words = ["--data.name", "diabetes", "--scale", "smoke", "--recipe.epochs", "2"]
    words += ["--methods", "finetune", "ssd", "--results", str(tmp_path)]
    code, out, err = finish("compare", words)
    assert code == 0, err
    assert "rmse forget" in out


def test_list_shows_everything_and_what_is_missing():
    code, out, err = finish("list", [])
    assert code == 0, err
    for table in (METHODS, DATASETS, MODELS):
        assert all(name in out for name in table)
    assert "UNLEARN_DATA" in out
