"""The study of datamodels: refusals, its arithmetic, and once at a tiny size."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.datamodels import STUDY
from experiments.datamodels.config import Config, slurm_options
from experiments.datamodels.measure import build, look, remake
from experiments.frame import study
from experiments.frame.config import labelled
from experiments.frame.problem import Data, Network
from unlearn_jax.results.rows import Rows
from unlearn_jax.train.recipe import Recipe

TINY = Config(
    data=Data(limit=60),
    model=Network(name="linear"),
    recipe=Recipe(epochs=3, batch_size=30, weight_decay=0.0),
    members=16,
    held_out=4,
    queries=5,
    chunk=8,
)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--members 3", "members is 3; expected at least 16"),
        ("--held-out 2", "held_out is 2"),
        ("--queries 2", "queries is 2; expected at least 3"),
        ("--queries 301", "queries is 301; expected 3 to 300"),
        ("--share 0", "share is 0"),
        ("--share 1", "share is 1"),
        ("--share 0.001", "is no subset"),
        ("--share 0.999", "do not differ"),
        ("--model.name rope", "no model 'rope'"),
        ("--slurm a", "slurm is 'a'; expected name=value"),
        ("--workers -1", "workers is -1"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    asked = ["--scale", "smoke", *words.split(), "--results", str(tmp_path)]
    with pytest.raises(ValueError, match=says):
        study.run(STUDY, asked)
    assert not list(tmp_path.iterdir())


def test_slurm_parameters_are_numbers_where_they_can_be():
    found = slurm_options(("timeout_min=60", "slurm_partition=a"))
    assert found == {"timeout_min": 60, "slurm_partition": "a"}


def test_more_members_begin_with_the_same_ones_and_are_another_scale():
    few, more = (dataclasses.replace(TINY, members=m, workers=m) for m in (16, 24))
    one, other = remake(few)[3], remake(more)[3]
    for part, whole in zip(one, other, strict=True):
        np.testing.assert_array_equal(whole[:20], part)
    assert labelled(more, few).scale == "custom"
    elsewhere = dataclasses.replace(few, where="local", workers=2)
    assert labelled(elsewhere, few).scale == few.scale


class Fixed:
    """An ensemble whose outputs are given."""

    def __init__(self, outputs):
        self.values, self.count = outputs, len(outputs)

    def outputs(self, members):
        return self.values[members]


def test_members_are_looked_at_on_what_they_have_and_have_not_seen():
    setting = build(TINY)
    train, test = setting.dataset.splits
    targets = np.concatenate([train.targets, test.targets])
    n = len(train.targets)
    right = np.zeros((20, len(targets)), bool)
    right[:, :n] = setting.masks
    right[:, n : n + len(test.targets) // 2] = True
    labels = np.where(right, targets, (targets + 1) % 10)
    outputs = np.asarray(jax.nn.one_hot(labels, 10)) * 2.0
    found = Rows(look(Fixed(outputs), setting))
    high = 2 - np.log(9)
    low = -np.log(8 + np.exp(2))
    for kind, rate, level in (
        ("train, in the subset", 1.0, high),
        ("train, left out", 0.0, low),
    ):
        assert found.value("accuracy", split=kind) == rate
        assert found.value("margin", split=kind) == pytest.approx(level, abs=1e-6)
    half = (len(test.targets) // 2) / len(test.targets)
    assert found.value("accuracy", split="test") == pytest.approx(half)
    np.testing.assert_allclose(found.values("margin_spread"), 0, atol=1e-3)


@pytest.mark.slow
def test_the_study_ends_with_tables_and_a_figure(study_run):
    words = "--scale smoke --data.limit 60 --model.name linear --model.width 0 "
    words += "--model.depth 2 --members 16 --held-out 4 --queries 5 --chunk 8"
    rows = study_run(STUDY, words).rows
    assert rows.value("members") == 20
    assert rows.value("outputs_bytes") == 20 * 120 * 10 * 4
    seen, left = ("train, in the subset", "train, left out")
    assert rows.value("accuracy", split=seen) > rows.value("accuracy", split=left)
    assert rows.places("members") == [2, 4, 8, 16]
    assert -1 <= rows.value("lds", members=16) <= 1
