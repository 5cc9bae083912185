"""The study of datamodels: refusals, its arithmetic, and once at a tiny size."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import datamodels
from experiments._datamodels import Config, build, remake, slurm_options
from experiments.frame.problem import Data, Network
from unlearn_jax.results.record import read_records
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
    ("change", "message"),
    [
        ({"members": 3}, "at least 16 members"),
        ({"queries": 2}, "queries is 2; expected 3 to"),
        ({"share": 0.0}, "share 0.0"),
        ({"share": 1.0}, "share is 1.0"),
        ({"model": Network(name="rope")}, "no model 'rope'"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_trained(change, message):
    with pytest.raises(ValueError, match=message):
        build(dataclasses.replace(TINY, **change))


def test_slurm_parameters_are_numbers_where_they_can_be():
    asked = dataclasses.replace(TINY, slurm=("timeout_min=60", "slurm_partition=a"))
    assert slurm_options(asked) == {"timeout_min": 60, "slurm_partition": "a"}
    with pytest.raises(ValueError, match="cannot read the SLURM parameter 'a'"):
        slurm_options(dataclasses.replace(TINY, slurm=("a",)))


def test_more_members_share_the_folder_and_begin_with_the_same_rows():
    few, more = build(TINY), build(dataclasses.replace(TINY, members=24, workers=3))
    assert few.folder == more.folder
    np.testing.assert_array_equal(more.masks[:20], few.masks)
    assert build(dataclasses.replace(TINY, seed=1)).folder != few.folder
    np.testing.assert_array_equal(remake(TINY)[3].weights, few.masks)


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
    found = datamodels.look(Fixed(outputs), setting)
    high = 2 - np.log(9)
    low = -np.log(8 + np.exp(2))
    seen, left = found["train, in the subset"], found["train, left out"]
    assert (seen["accuracy"], left["accuracy"]) == (1.0, 0.0)
    assert seen["margin"] == pytest.approx(high, abs=1e-6)
    assert left["margin"] == pytest.approx(low, abs=1e-6)
    half = (len(test.targets) // 2) / len(test.targets)
    assert found["test"]["accuracy"] == pytest.approx(half)
    spreads = [own["margin_spread"] for own in found.values()]
    np.testing.assert_allclose(spreads, 0, atol=1e-3)


@pytest.mark.slow
def test_the_study_ends_with_tables_and_a_figure(tmp_path, monkeypatch):
    preset = dataclasses.replace(TINY, scale="smoke")
    monkeypatch.setattr(datamodels, "presets", lambda data: {"smoke": preset})
    words = ["--scale", "smoke", "--results", str(tmp_path)]
    assert datamodels.command(words) == 0
    (folder,) = (tmp_path / "datamodels").iterdir()
    records = read_records(folder / "records.jsonl")
    found = {(r.metric, r.split or r.request): r.value for r in records}
    assert found["members", ""] == 20
    assert found["outputs_bytes", ""] == 20 * 120 * 10 * 4
    seen, left = ("train, in the subset", "train, left out")
    assert found["accuracy", seen] > found["accuracy", left]
    assert -1 <= found["lds", "16 members"] <= 1
    assert list((folder / "figures").glob("*.png"))
