"""The study of distributions end to end, as small as it can be."""

import numpy as np
import pytest

from experiments import dmm
from experiments.dmm.unlearn import Unlearner
from experiments.frame import ensembles

WORDS = (
    "--scale smoke --model.name linear --model.width 0 --data.limit 120 "
    "--requests random:10 --recipe.epochs 2 --points 20 --methods finetune ssd"
)


def test_study_ends_with_everybody_and_a_second_run_does_only_what_is_new(
    study_run, monkeypatch
):
    first = study_run(dmm.STUDY, WORDS)
    known = {
        *("original", "oracle vs oracle", "finetune", "ssd"),
        *("direct: ekfac_influence", "dmm: ekfac_influence", "oracle matching"),
    }
    assert set(first.rows.places("method")) == known
    assert np.all(np.isfinite([row.value for row in first.rows]))
    splits = first.rows.where("klom_p95", method="ssd").places("split")
    assert splits == ["forget", "retain", "validation"]
    for name in ("ssd", "dmm: ekfac_influence"):
        assert first.rows.value("prepare_seconds", method=name) > 0
    assert not first.rows.where("prepare_seconds", method="finetune")

    done, trained = [], []
    unlearn, train = Unlearner.__call__, ensembles.train_ensemble
    monkeypatch.setattr(
        Unlearner, "__call__", lambda *a: done.append(a[1].setting) or unlearn(*a)
    )
    monkeypatch.setattr(
        ensembles,
        "train_ensemble",
        lambda folder, *given, **how: (
            trained.append(any(folder.glob("members-*")))
            or train(folder, *given, **how)
        ),
    )
    again = study_run(dmm.STUDY, f"{WORDS} --options ssd.alpha=5,7 --settings 2")
    assert all(trained)
    assert "alpha 7" in done
    assert "alpha 5" not in done
    for row in first.rows.where(method="ssd"):
        assert again.rows.value(row.metric, **row.at) == pytest.approx(row.value, abs=0)
