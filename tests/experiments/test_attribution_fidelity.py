"""The study of attributions: what is aligned with what, scores, refusals."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from commands import finish

from experiments import _attribution_run, _kept, attribution_fidelity
from experiments._attribution_run import (
    RANDOM,
    Answer,
    Known,
    ask,
    ask_all,
    remove_supporters,
    train_truth,
)
from experiments._attribution_setting import (
    Competitor,
    Config,
    Setting,
    presets,
    read_label,
)
from experiments._attribution_tables import (
    ceiling_of,
    figure_rows,
    lines_of,
    notes_of,
    slope_of,
    tables_of,
)
from experiments._kept import stream_keys
from experiments.frame.problem import Data, Network
from unlearn_jax.attribution.attribution import (
    Attribution,
    Ensemble,
    Evidence,
    Trajectory,
)
from unlearn_jax.results.plot_attribution import attribution_figure
from unlearn_jax.results.record import read_records
from unlearn_jax.results.run import new_run
from unlearn_jax.storage.store import Store
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Batch, Variables

N, Q = 30, 6
TRUE = np.random.default_rng(0).normal(size=(Q, N))
"""Effects in a world where outputs are linear in the training weights."""


def linear_outputs(weights, points):
    """Outputs of two classes whose margin of class 0 is ``TRUE @ weights``."""
    margins = weights.astype(float) @ TRUE[points].T
    return np.stack([margins, np.zeros_like(margins)], axis=-1)


@pytest.fixture
def world(monkeypatch):
    """A study whose retraining is a matrix product, with three attributions."""
    config = Config(
        attributions=("right", "wrong", "exact", "fails"),
        removals=("right", "wrong"),
        models=2,
        queries=Q,
        subsets=12,
        retrainings=3,
        removal_queries=4,
        removed=3,
        removal_retrainings=2,
        bootstrap=5,
    )
    data = Batch(jnp.zeros((N, 1)), jnp.zeros(N, int), jnp.ones(N))
    queries = Batch(jnp.zeros((Q, 1)), jnp.zeros(Q, int), jnp.ones(Q))

    def trained(setting, name, weights, stream, **_):
        return SimpleNamespace(outputs=lambda points: linear_outputs(weights, points))

    monkeypatch.setattr(_attribution_run, "_kept", trained)
    made = Attribution(
        lambda key, evidence, train: evidence,
        lambda state, train, queries, output: jnp.zeros((Q, N)),
        lambda *_: jnp.zeros((Q, 2)),
    )
    competitors = [
        Competitor("right", made, ("models",), (1, 2), Q),
        Competitor("wrong", made, ("ensemble",), (8,), Q),
        Competitor("exact", made, ("keys",), (), 0),
        Competitor("fails", made, ("models",), (2,), Q),
    ]
    learner = tiny.learner("softmax")
    setting = Setting(
        config,
        None,  # type: ignore[arg-type]
        learner,
        data,
        data,
        np.arange(Q),
        queries,
        competitors,
    )
    known = Known(
        Evidence(Variables({}, {})),
        linear_outputs(np.ones((2, N)), np.arange(Q)),
        2.0,
        0.5,
    )
    answers = {
        ("right", 1): Answer(TRUE + 1.0, 1.0, 2.0),
        ("right", 2): Answer(TRUE / 2, 1.0, 2.0),
        ("wrong", 8): Answer(-TRUE, 1.0, 2.0),
        ("fails", 2): Answer(np.zeros((0, N)), failure="no such thing"),
    }
    return setting, known, answers


def test_truth_keeps_subsets_retrainings_and_queries_apart(world):
    truth = train_truth(world[0])
    assert truth.runs.shape == (3, Q, 12)
    assert (truth.masks.sum(axis=1) == N // 2).all()
    for run in truth.runs:
        np.testing.assert_allclose(run, TRUE @ truth.masks.T, rtol=1e-5, atol=1e-5)


def test_scores_of_the_truth_are_one_and_of_its_opposite_minus_one(world):
    setting, known, answers = world
    truth = train_truth(setting)
    lines = {(x.label, x.count): x for x in lines_of(setting, known, truth, answers)}
    assert set(lines) == {("right", 1), ("right", 2), ("wrong", 8)}
    for line, score, slope in (
        (lines["right", 1], 1, 1),
        (lines["right", 2], 1, 2),
        (lines["wrong", 8], -1, -1),
    ):
        np.testing.assert_allclose(line.lds.value, score, atol=1e-6)
        np.testing.assert_allclose(line.pearson.value, score, atol=1e-5)
        np.testing.assert_allclose(line.slope, slope, rtol=1e-4)
    assert lines["right", 2].seconds == 2 * 2.0 + 1 + 2
    assert lines["wrong", 8].seconds == 8 * 0.5 + 1 + 2
    np.testing.assert_allclose(ceiling_of(setting.config, truth).value, 1, atol=1e-6)


def test_removals_predict_themselves_in_a_linear_world(world):
    """Row by row: models without the supporters of query q are judged at query q."""
    setting, known, answers = world
    answers["right", 2] = Answer(TRUE, 1.0, 2.0)
    found = remove_supporters(setting, known, answers)
    assert list(found) == ["right", RANDOM, "wrong"]
    strongest = np.sort(TRUE[:4], axis=1)[:, ::-1]
    for name, sign, shifts in (
        ("right", 1, -strongest[:, :3].sum(axis=1)),
        ("wrong", -1, -strongest[:, -3:].sum(axis=1)),
    ):
        outcome = found[name].outcome
        np.testing.assert_allclose(outcome.shift, shifts, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(outcome.predicted, sign * shifts, rtol=1e-6)
    assert found["right"].outcome.sign_agreement == 100
    assert found["wrong"].outcome.sign_agreement == 0
    control = found[RANDOM].outcome
    np.testing.assert_allclose(control.predicted, control.shift, rtol=1e-3, atol=1e-5)


def test_what_is_left_out_or_failed_says_why(world):
    setting, known, answers = world
    truth = train_truth(setting)
    lines = lines_of(setting, known, truth, answers)
    ceiling = ceiling_of(setting.config, truth)
    removals = remove_supporters(setting, known, answers)
    run = new_run("attribution_fidelity", "smoke", setting.config, dataset="linear")
    given = (known, lines, answers, ceiling, removals, run)
    scores, taken = (each.to_markdown() for each in tables_of(setting, *given))
    assert "left out: exact_queries is 0" in scores.replace("\\", "")
    assert "failed: no such thing" in scores
    assert "random (control)" in taken
    notes = notes_of(setting, lines, answers, ceiling, removals)
    failed = [note for note in notes if note.failure]
    assert [(note.method, note.failure) for note in failed] == [
        ("fails", "no such thing")
    ]
    rows = figure_rows(lines, ceiling, truth, removals)
    assert {row["panel"] for row in rows} == {"scores", "example", "removals"}
    assert len({tuple(row) for row in rows}) == 1
    assert len(attribution_figure(rows).axes) == 3
    few = [row for row in rows if row["panel"] == "scores"]
    assert len(attribution_figure(few).axes) == 1


def test_slope_needs_spread():
    assert np.isnan(slope_of(np.ones((2, 3)), np.arange(6.0).reshape(2, 3)))


def test_competitors_see_the_first_models_or_members_and_answers_are_kept(
    world, tmp_path
):
    setting = world[0]
    asked = []

    def effects(state, train, queries, output):
        size = len(state.models.params["w"])
        members = 0 if state.ensemble is None else len(state.ensemble.masks)
        asked.append((size, members))
        if state.keys is not None:
            assert len(state.keys) == size
            assert state.trajectory.checkpoints.params["w"].shape == (size, 3)
        return jnp.full((Q, N), float(size + members))

    made = Attribution(
        lambda key, evidence, train: evidence, effects, lambda *_: jnp.zeros((Q, 2))
    )

    def refuse(key, evidence, train):
        raise ValueError("not for this net")

    competitors = [
        Competitor("models", made, ("models",), (1, 2), Q),
        Competitor("members", made, ("ensemble",), (4,), Q),
        Competitor("none", made._replace(prepare=refuse), ("models",), (1,), Q),
    ]
    setting = setting._replace(competitors=competitors)
    evidence = Evidence(
        Variables({"w": jnp.zeros(2)}, {}),
        stream_keys(0, 0, 2),
        Trajectory(Variables({"w": jnp.zeros((2, 3))}, {}), jnp.ones(3), jnp.ones(3)),
        Ensemble(jnp.zeros((8, N)), Variables({"w": jnp.zeros(8)}, {})),
    )
    known = world[1]._replace(evidence=evidence)
    with Store(tmp_path) as store:
        found = ask_all(store, setting, known)
        assert asked == [(1, 0), (2, 0), (1, 4)]
        again = ask_all(store, setting, known)
    assert len(asked) == 3
    assert again["none", 1].failure == "not for this net"
    np.testing.assert_array_equal(again["members", 4].effects, 5.0)
    np.testing.assert_array_equal(again["models", 2].effects, 2.0)
    assert found["models", 1].failure == ""
    wild = made._replace(effects=lambda *_: jnp.full((Q, N), jnp.nan))
    answer = ask(setting, known, competitors[0]._replace(made=wild), 1)
    assert "not finite" in answer.failure


def test_kept_ensembles_are_found_again_grow_and_differ_by_weights(
    monkeypatch, tmp_path
):
    config = SimpleNamespace(
        data=Data(), model=Network(), recipe=Recipe(), seed=0, results=tmp_path
    )

    def asked(folder, learner, data, points, plan, label):
        return folder, plan.keys

    monkeypatch.setattr(_kept, "train_ensemble", asked)
    masks = np.eye(3, 8, dtype=np.uint8)

    def folder(rows=masks, stream=1, **options) -> Any:
        given: Any = (config, None, None, None, "some", rows, stream)
        return _kept.kept_ensemble(*given, **options)

    whole, keys = folder()
    part, some = folder(masks[:2])
    assert part == whole
    assert part.parent == tmp_path / "ensembles"
    np.testing.assert_array_equal(some, keys[:2])
    alone = [folder(rows, grows=False)[0] for rows in (masks, masks[:2])]
    others = [folder(masks[1:])[0], folder(stream=2)[0], *alone]
    config.recipe = Recipe(epochs=1)
    others.append(folder()[0])
    assert len({whole, *others}) == 6
    assert not (folder(stream=2)[1] == keys).any()


def test_labels_carry_hyper_parameters():
    assert read_label("trak") == ("trak", {})
    name, options = read_label("trak:width=64,kernel=newton,damping=0.5")
    assert name == "trak"
    assert options == {"width": 64, "kernel": "newton", "damping": 0.5}


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_preset_names_known_attributions(data, model):
    for scale, preset in presets(data, model).items():
        assert preset.scale == scale
        assert set(preset.removals) <= set(preset.attributions)
        for label in preset.attributions:
            read_label(label)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--attributions nothing", "choose from"),
        ("--attributions trak:widht=3", "one of"),
        ("--attributions trak:width=many", "not a"),
        ("--attributions", "at least one"),
        ("--removals source", "not among"),
        ("--share 1.5", "0 < share < 1"),
        ("--subsets 2", "at least 3"),
        ("--retrainings 1", "at least 2"),
        ("--exact-queries 999", "at most"),
        ("--costly-models 9", "of 1 models"),
        ("--queries 9999", "too many"),
        ("--model.name tree", "no model"),
        ("--data.name diabetes", "classes"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    asked = ["--scale", "smoke", *words.split(), "--results", str(tmp_path)]
    with pytest.raises(ValueError, match=says):
        attribution_fidelity.command(asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_study_end_to_end_and_again(tmp_path):
    """The command as typed; a second run reads the trained ensembles."""
    words = "--scale smoke --data.limit 200 --recipe.epochs 4 --model.width 16".split()
    words += ["--results", str(tmp_path)]
    for _ in range(2):
        code, out, err = finish("attribution_fidelity", words)
        assert code == 0, err
        assert "attainable" in out
    runs = sorted((tmp_path / "attribution_fidelity").iterdir())
    assert len(runs) == 2
    assert len(list((tmp_path / "ensembles").iterdir())) == 3
    scores = []
    for folder in runs:
        assert (folder / "figures" / "attribution.png").stat().st_size > 1000
        records = read_records(folder / "records.jsonl")
        scores.append({r.method: r.value for r in records if r.metric == "lds"})
    assert scores[0] == scores[1]
    assert {"attainable", "ekfac_influence", "tracin", "datamodel"} <= set(scores[0])
