"""The study of distributions end to end, as small as it can be."""

import numpy as np

from experiments import dmm
from experiments._dmm_run import train_all
from experiments._dmm_setting import Config, build
from experiments._study import parse
from unlearn_jax.results.record import read_records

WORDS = (
    "--scale smoke --model.name linear --model.width 0 --data.limit 120 "
    "--requests random:10 --recipe.epochs 2 --points 20"
).split()


def test_study_ends_with_everybody_and_a_second_run_trains_nothing(tmp_path, capsys):
    words = [*WORDS, "--results", str(tmp_path)]
    assert dmm.command(words) == 0
    told = capsys.readouterr().out
    for name in ("floor (simulated)", "oracle vs oracle", "dmm: ekfac", "scrub"):
        assert name in told
    (folder,) = (tmp_path / "dmm").iterdir()
    records = read_records(folder / "records.jsonl")
    found = {(r.method, r.split): r.value for r in records if r.metric == "klom_p95"}
    families = {"original", "oracle vs oracle", "finetune", "gradient_ascent", "ssd"}
    assert families <= {method for method, _ in found}
    assert np.all(np.isfinite(list(found.values())))
    assert (folder / "figures" / "dmm.png").stat().st_size > 10_000
    ensembles = {p: p.stat().st_mtime_ns for p in tmp_path.glob("ensembles/*/*/*.npy")}
    assert ensembles
    config = parse(Config, dmm.presets("digits"), words, "dmm", None)
    train_all(build(config))
    assert ensembles == {p: p.stat().st_mtime_ns for p in ensembles}
