"""Folders of runs of the comparison, as a run leaves them."""

from results.fake_records import METHODS, fake_run, rows_of

from experiments.compare.config import Config
from experiments.frame.problem import Network
from unlearn_jax.results.rows import write_rows
from unlearn_jax.results.run import write_run
from unlearn_jax.storage.arrays import write_arrays
from unlearn_jax.storage.plain import plain_config

FEW = {name: METHODS[name] for name in ("original", "ssd", "newton", "oracle")}
CONFIG = plain_config(Config(model=Network("mlp")))


def fill(folder, found, **changes):
    """Write a run of these records."""
    rows = rows_of(found)
    run = fake_run(config=CONFIG, dataset="Digits (8x8, scikit-learn)", **changes)
    write_run(folder, run._replace(records=len(rows)))
    write_rows(folder / "rows.jsonl", rows)
    write_arrays(folder / "arrays.npz", {})


def written(folder):
    """Every file below a folder, with its bytes."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }
