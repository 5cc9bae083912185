"""The study of distributions end to end, as small as it can be."""

import jax
import numpy as np
import pytest
from asserts import assert_trees_close

from experiments import dmm
from experiments.dmm import unlearn
from experiments.frame import ensembles
from unlearn_jax.train.fit import fit

WORDS = (
    "--scale smoke --model.name linear --model.width 0 --data.limit 120 "
    "--requests random:10 --recipe.epochs 2 --points 20 "
    "--methods finetune ssd source_removal "
    "--attributions ekfac_influence unrolled_response"
)


@pytest.mark.slow
def test_study_ends_with_everybody_and_a_second_run_does_only_what_is_new(
    study_run, monkeypatch
):
    traced, trace = [], unlearn.kept_trace
    monkeypatch.setattr(
        unlearn, "kept_trace", lambda *given: traced.append(given) or trace(*given)
    )
    first = study_run(dmm.STUDY, WORDS)
    known = {
        *("original", "oracle vs oracle", "finetune", "ssd", "source_removal"),
        *("direct: ekfac_influence", "dmm: ekfac_influence", "oracle matching"),
        *("direct: unrolled_response", "dmm: unrolled_response"),
    }
    assert set(first.rows.places("method")) == known
    assert np.all(np.isfinite([row.value for row in first.rows]))
    splits = first.rows.where("klom_p95", method="ssd").places("split")
    assert splits == ["forget", "retain", "validation"]
    for name in ("ssd", "dmm: ekfac_influence"):
        assert first.rows.value("prepare_seconds", method=name) > 0
    assert not first.rows.where("prepare_seconds", method="finetune")
    # Outputs of a linear model are linear in what the response changes.
    for metric in ("agreement", "size"):
        one, other = (
            first.rows.value(metric, method=name)
            for name in ("source_removal", "direct: unrolled_response")
        )
        assert one == pytest.approx(other, rel=1e-3)
        assert abs(one) > 1e-3
    # A trace is that of the original's own training.
    _, learner, data, original, keys, _ = traced[1]
    again = jax.jit(lambda key: fit(key, learner, data))(keys[0])
    assert_trees_close(again, original, rtol=1e-4, atol=1e-6)

    done, trained = [], []
    call, train = unlearn.Unlearner.__call__, ensembles.train_ensemble
    monkeypatch.setattr(
        unlearn.Unlearner, "__call__", lambda *a: done.append(a[1].setting) or call(*a)
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
