"""The study of attributions: what is aligned with what, scores, refusals."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from results.fake_records import fake_run

from experiments.attribution_fidelity import STUDY, evidence, measure, removals
from experiments.attribution_fidelity.config import Config
from experiments.attribution_fidelity.evidence import Known, Truth, train_truth
from experiments.attribution_fidelity.measure import ask, scores, slope_of
from experiments.attribution_fidelity.removals import RANDOM, remove_supporters
from experiments.attribution_fidelity.setting import Setting
from experiments.attribution_fidelity.show import show
from experiments.attribution_fidelity.variant import Variant, read_variants
from experiments.frame import study
from experiments.frame.bench import Bench
from experiments.frame.config import restored
from experiments.frame.ensembles import stream_keys
from experiments.frame.options import OptionError
from experiments.frame.problem import Problem
from experiments.frame.study import Results
from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    Subsets,
    Trajectory,
)
from unlearn_jax.results.rows import Rows
from unlearn_jax.solvers.solution import REASONS, no_report
from unlearn_jax.storage.plain import plain_config
from unlearn_jax.storage.store import Store
from unlearn_jax.types import Batch, Variables

N, Q = 30, 6
TRUE = np.random.default_rng(0).normal(size=(Q, N))
"""Effects in a world where outputs are linear in the training weights."""

SHORT = next(reason for reason in REASONS if reason.startswith("out of steps"))
RIGHT, WRONG, EXACT = map(Variant, ("influence", "datamodel", "metagradient"))


def linear_outputs(weights, points):
    """Outputs of two classes whose margin of class 0 is ``TRUE @ weights``."""
    margins = weights.astype(float) @ TRUE[points].T
    return np.stack([margins, np.zeros_like(margins)], axis=-1)


def gives(effects):
    """An attribution that says this of every evidence."""
    return Attribution(
        lambda key, evidence, train: evidence,
        lambda state, train, queries, output: jnp.asarray(effects),
        lambda *_: jnp.zeros((Q, 2)),
    )


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A study whose retraining is a matrix product, with three attributions."""
    config = Config(
        attributions=(RIGHT, WRONG, EXACT),
        removals=(RIGHT, WRONG),
        models=2,
        members=8,
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

    def trained(bench, setting, name, weights, stream, **_):
        return SimpleNamespace(outputs=lambda points: linear_outputs(weights, points))

    for module in (evidence, removals):
        monkeypatch.setattr(module, "retrained", trained)
    nothing: Any = None
    made = Problem(nothing, tiny.learner("softmax"), data, data)
    setting = Setting(config, made, np.arange(Q), queries, {})
    with Store(tmp_path) as store:
        yield Bench(store, tmp_path, fake_run()), setting


def ones():
    """Outputs by two models of all examples."""
    return linear_outputs(np.ones((2, N)), np.arange(Q))


def test_truth_keeps_subsets_retrainings_and_queries_apart(world):
    truth = train_truth(*world)
    assert truth.runs.shape == (3, Q, 12)
    assert (truth.masks.sum(axis=1) == N // 2).all()
    for run in truth.runs:
        np.testing.assert_allclose(run, TRUE @ truth.masks.T, rtol=1e-5, atol=1e-5)


def test_scores_of_the_truth_are_one_and_of_its_opposite_minus_one(world):
    truth = train_truth(*world)
    for effects, score, slope in ((TRUE + 1, 1, 1), (TRUE / 2, 1, 2), (-TRUE, -1, -1)):
        found = Rows(scores(world[1], truth, effects, {}))
        np.testing.assert_allclose(found.value("lds"), score, atol=1e-6)
        np.testing.assert_allclose(found.value("pearson"), score, atol=1e-5)
        np.testing.assert_allclose(found.value("slope"), slope, rtol=1e-4)
    (row,) = scores(world[1], truth, np.zeros((Q, N)), {})
    assert (row.metric, row.failure) == ("lds", "effects without spread")


def test_removals_predict_themselves_in_a_linear_world(world):
    """Row by row: models without the supporters of query q are judged at query q."""
    bench, setting = world
    effects = {"right": TRUE, "wrong": -TRUE}
    rows = Rows(remove_supporters(bench, setting, ones(), effects))
    assert rows.places("supporters") == ["right", RANDOM, "wrong"]
    strongest = np.sort(TRUE[:4], axis=1)[:, ::-1]
    for name, sign, shifts in (
        ("right", 1, -strongest[:, :3].sum(axis=1)),
        ("wrong", -1, -strongest[:, -3:].sum(axis=1)),
    ):
        predicted, shift, _ = bench.arrays[f"removals/{name}"]
        np.testing.assert_allclose(shift, shifts, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(predicted, sign * shifts, rtol=1e-6)
        assert rows.value("shift", supporters=name) == pytest.approx(shift.mean())
    assert rows.value("sign_agreement", supporters="right") == 100
    assert rows.value("sign_agreement", supporters="wrong") == 0
    control, shift, _ = bench.arrays[f"removals/{RANDOM}"]
    np.testing.assert_allclose(control, shift, rtol=1e-3, atol=1e-5)


def test_a_failure_is_named_the_others_go_on_and_answers_are_kept(world, monkeypatch):
    bench, setting = world
    asked = []

    def told(setting, evidence, variant, count):
        asked.append((variant, count))
        return ask(setting, evidence, variant, count)

    def refuse(*_):
        raise ValueError("no such thing")

    known = Known(whole(), ones(), {"models": 2.0, "members": 0.5})
    monkeypatch.setattr(measure, "train_evidence", lambda *_: known)
    monkeypatch.setattr(measure, "ask", told)
    made = {
        RIGHT.label: gives(TRUE)._replace(
            effects_reported=lambda *_: (
                jnp.asarray(TRUE),
                no_report()._replace(code=jnp.asarray(REASONS.index(SHORT))),
            )
        ),
        WRONG.label: gives(-TRUE)._replace(prepare=refuse),
    }
    setting = setting._replace(made=made)
    rows = Rows(measure.measure(bench, setting))
    assert asked == [(RIGHT, 1), (WRONG, 2), (WRONG, 8)]
    again = Rows(measure.measure(bench, setting))
    assert again == rows
    assert asked[3:] == [(WRONG, 2), (WRONG, 8)], "an answer was made twice"
    assert rows.value("evidence_seconds", attribution="influence") == 2.0
    assert rows.failures == [
        f"datamodel {count} lds: ValueError: no such thing" for count in (2, 8)
    ]
    run = fake_run(experiment="attribution_fidelity")
    (found,) = show(setting.config, Results(run, rows, bench.arrays))
    first, second = (table.to_markdown() for table in found.tables)
    assert "failed: ValueError: no such thing" in first
    sentence = f"influence, 1 model: a solve ended early, {SHORT}."
    assert sentence in first.replace("\\", "")
    assert "left out: exact" in first
    assert "random (control)" in second
    (drawing,) = found.drawings
    assert {row["panel"] for row in drawing.rows} == {"scores", "example", "removals"}
    assert "influence, 1 model" in {row["attribution"] for row in drawing.rows}
    assert len({tuple(row) for row in drawing.rows}) == 1
    assert len(drawing.figure.axes) == 3


def test_slope_needs_spread():
    assert np.isnan(slope_of(np.ones((2, 3)), np.arange(6.0).reshape(2, 3)))


def whole():
    """Evidence of two models and eight members that tell their number."""
    return Evidence(
        Variables({"w": jnp.zeros(2)}, {}),
        stream_keys(0, 0, 2),
        Trajectory(Variables({"w": jnp.zeros((2, 3))}, {}), jnp.ones(3), jnp.ones(3)),
        Subsets(jnp.zeros((8, N)), Variables({"w": jnp.zeros(8)}, {})),
    )


def test_attributions_see_the_first_models_or_members(world):
    def effects(state, train, queries, output):
        size = len(state.models.params["w"])
        members = 0 if state.ensemble is None else len(state.ensemble.masks)
        if state.keys is not None:
            assert len(state.keys) == size
            assert state.trajectory.checkpoints.params["w"].shape == (size, 3)
        return jnp.full((Q, N), float(10 * size + members))

    made = gives(TRUE)._replace(effects=effects)
    labels = {RIGHT.label: made, WRONG.label: made}
    setting = world[1]._replace(made=labels)
    for variant, count, seen in ((RIGHT, 1, 10), (RIGHT, 2, 20), (WRONG, 4, 14)):
        found = ask(setting, whole(), variant, count)
        np.testing.assert_array_equal(found.arrays["effects"], seen)
        assert set(found.data["seconds"]) == {"prepare", "effects", "compile"}
        assert found.data["solver"] == 0
    wild = setting._replace(made={RIGHT.label: gives(np.full((Q, N), np.nan))})
    with pytest.raises(ValueError, match="not finite"):
        ask(wild, whole(), RIGHT, 1)


def test_the_example_is_the_query_of_median_correlation():
    masks = np.eye(4)
    effects = np.array([[1.0, 2, 3, 4], [1, 3, 2, 4], [4, 3, 2, 1]])
    truth = Truth(masks, np.tile([1.0, 2, 3, 4], (2, 3, 1)))
    predicted, true = measure.example(truth, effects)
    np.testing.assert_allclose(predicted, effects[1] - 2.5)
    np.testing.assert_allclose(true, [-1.5, -0.5, 0.5, 1.5])


def test_variants_carry_hyper_parameters_of_their_types_and_come_back():
    words = ["trak", "trak:width=64,kernel=newton,damping=0.5"]
    plain, own = read_variants(words)
    assert [plain.label, own.label] == words
    assert own.options.of("trak") == {"width": 64, "kernel": "newton", "damping": 0.5}
    config = Config(attributions=(plain, own))
    assert restored(Config, plain_config(config)) == config


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_every_preset_is_of_its_scale_and_model(data, model):
    for scale, preset in STUDY.presets(data, model).items():
        assert preset.scale == scale
        assert preset.model.name == model
        assert set(preset.removals) <= set(preset.attributions)
    words = ["--scale", "smoke", "--model.name", model, "--data.name", data]
    asked = study.configured(STUDY, words)
    assert asked == STUDY.presets(data, model)["smoke"]
    more = dataclasses.replace(asked, members=32)
    assert study.configured(STUDY, [*words, "--members", "32"]).scale == "custom"
    assert more.counts_of(WRONG) == (8, 32)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--attributions nothing", "choose from"),
        ("--attributions trak:widht=3", "no hyper-parameter 'widht'"),
        ("--attributions trak:width=many", "not a"),
        ("--attributions", "at least one"),
        ("--attributions trak trak", "none of them twice"),
        ("--removals source", "not among"),
        ("--share 1.5", "between 0 and 1"),
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
        study.run(STUDY, asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_second_run_trains_nothing_and_says_the_same(study_run, tmp_path):
    words = "--scale smoke --data.limit 200 --recipe.epochs 4 --model.width 16"
    first, second = (study_run(STUDY, f"{words} --name {n}").rows for n in ("a", "b"))
    assert len(list((tmp_path / "kept" / "models").iterdir())) == 3
    times = [
        [row for row in rows if row.unit != "s" or row.metric == "train_seconds"]
        for rows in (first, second)
    ]
    assert times[0] == times[1]
    names = {"attainable", "ekfac_influence", "tracin", "datamodel"}
    assert set(first.places("attribution")) == names


MINE = """
from unlearn_jax.attribution import ATTRIBUTIONS

def mine(learner, *, damping: float = 0.1):
    return ATTRIBUTIONS["influence"].factory(learner, damping=damping)

def nothing(learner):
    return 3
"""


def test_an_attribution_of_ones_own_competes_and_its_file_counts(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    plain, own = read_variants([f"{file}:mine", f"{file}:mine:damping=0.5"])
    assert own.options.of(own.name) == {"damping": 0.5}
    assert own.label == f"{file}:mine:damping=0.5"
    assert (own.unit, plain.options.of(plain.name)) == ("models", {})
    assert isinstance(own.made(tiny.learner("mlp")), Attribution)
    assert read_variants([own.label]) == (own,)
    config = Config(attributions=(own,), removals=())
    setting = SimpleNamespace(dataset=None, title="")
    before = study.described(STUDY, config, setting)
    file.write_text(MINE.replace("0.1", "0.2"))
    assert study.described(STUDY, config, setting).inputs != before.inputs


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("trakk", "there is no attribution 'trakk'; choose from influence"),
        ("mine.py:mine", "there is no file mine.py"),
        ("trak:nope=1", "nope"),
    ],
)
def test_attributions_that_do_not_exist_are_named(name, sentence):
    with pytest.raises(OptionError, match=sentence):
        read_variants([name])


def test_what_is_no_attribution_is_refused(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    (wrong,) = read_variants([f"{file}:nothing"])
    with pytest.raises(ValueError, match=r"nothing gave int, expected a unlearn_jax"):
        wrong.made(tiny.learner("mlp"))
