"""Ensembles are found again by what decides them, and by nothing else."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results.fake_records import fake_run

from experiments import attribution_fidelity, datamodels, dmm
from experiments.frame import ensembles
from experiments.frame.bench import Bench
from experiments.frame.config import labelled
from experiments.frame.ensembles import stream_keys, stream_plan, training_words
from experiments.frame.problem import Data, Network, TrainingConfig
from experiments.studies import STUDIES
from unlearn_jax import tree
from unlearn_jax.storage.store import Store
from unlearn_jax.train.recipe import Recipe

MASKS = np.eye(3, 8, dtype=np.uint8)
POINTS = np.zeros((2, 4))


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """``asked(...)``: the folder and plan that would be trained."""
    monkeypatch.setattr(
        ensembles, "train_ensemble", lambda folder, *given, **_: (folder, given[3])
    )
    with Store(tmp_path / "run") as store:
        bench = Bench(store, tmp_path, fake_run())

        def ask(rows=MASKS, stream=1, points=POINTS, recipe=None, **options):
            words = training_words(TrainingConfig(recipe=recipe or Recipe()))
            plan = stream_plan(0, stream, rows)
            given: Any = (bench, None, None, points, plan)
            return ensembles.kept_ensemble(
                *given, name="some", known_by=words, **options
            )

        yield ask


def test_kept_ensembles_are_found_again_grow_and_differ_by_weights(asked, tmp_path):
    whole, plan = asked()
    part, some = asked(MASKS[:2], members="loop", workers=3)
    assert part == whole
    assert whole.is_relative_to(tmp_path / "kept")
    np.testing.assert_array_equal(some.keys, plan.keys[:2])
    others = [
        asked(grows=False),
        asked(MASKS[:2], grows=False),
        asked(MASKS[1:]),
        asked(stream=2),
        asked(points=POINTS + 1),
        asked(recipe=Recipe(epochs=1)),
    ]
    assert len({whole, *(folder for folder, _ in others)}) == 7


def test_streams_share_no_key():
    keys = jnp.concatenate([stream_keys(0, stream, 5) for stream in range(4)])
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 20


def test_a_preset_stays_one_where_no_number_depends_on_the_change():
    preset = STUDIES["compare"].presets("digits")["small"]
    elsewhere = dataclasses.replace(preset, name="mine", members="loop")
    assert labelled(elsewhere, preset).scale == "small"
    assert labelled(dataclasses.replace(preset, oracles=99), preset).scale == "custom"


def test_studies_ask_for_the_same_models_of_subsets(monkeypatch, tmp_path):
    """Whoever comes second finds what the first has trained."""
    asked = []

    def trained(folder, learner, data, points, plan, **_):
        count, n = plan.weights.shape
        if (plan.weights.sum(axis=1) == n // 2).all():
            asked.append((folder, plan))
        one = learner.model.init(jax.random.key(0))
        return SimpleNamespace(
            folder=folder,
            count=count,
            points=len(points),
            shape=(10,),
            dtype="float32",
            seconds=1.0,
            models=lambda: tree.stack([one] * count),
        )

    monkeypatch.setattr(ensembles, "train_ensemble", trained)
    same: Any = {
        "data": Data(limit=40),
        "model": Network(name="linear"),
        "recipe": Recipe(epochs=1, batch_size=20),
    }
    first = datamodels.config.Config(**same, l2=0.0, members=16, queries=3)
    second = attribution_fidelity.config.Config(
        **same, members=24, queries=3, removal_queries=0, models=1, checkpoints=1
    )
    third = dmm.config.Config(
        **same, members=20, originals=4, models=1, requests=("random:4",)
    )
    with Store(tmp_path / "run") as store:
        bench = Bench(store, tmp_path, fake_run())
        next(datamodels.measure.measure(bench, datamodels.measure.build(first)))
        setting = attribution_fidelity.setting.build(second)
        found = attribution_fidelity.evidence.train_evidence(bench, setting)
        other = dmm.models.train_all(bench, dmm.setting.build(third))
    assert len({folder for folder, _ in asked}) == 1
    (_, plan), *fewer = asked
    for evidence, (_, own) in zip((found, other), fewer, strict=True):
        count = len(own.keys)
        np.testing.assert_array_equal(plan.keys[:count], own.keys)
        np.testing.assert_array_equal(plan.weights[:count], own.weights)
        np.testing.assert_array_equal(evidence.evidence.ensemble.masks, own.weights)
