"""Streams of learning and forgetting: their laws, and one from end to end."""

import jax
import numpy as np
import pytest
from commands import over

from experiments.continual import STUDY, measure
from experiments.continual.follow import DELETIONS, difference
from experiments.continual.heads import SCRATCH, Frozen, scratch
from experiments.continual.neighbours import NEIGHBOURS, check_options, neighbours
from experiments.continual.sgd import RETRAIN, SGD_METHODS
from experiments.continual.stream import (
    ABSENT,
    KINDS,
    LEARN,
    UNKNOWN,
    classes_within,
    draw_stream,
    tasks_of,
)
from experiments.frame import backbone, study
from experiments.frame.options import Options
from unlearn_jax.models.random_features import directions, expand, random_kernel
from unlearn_jax.results.plot_looks import look
from unlearn_jax.train.recipe import Recipe

RIDGE = ("ACU", "ACU, inverse", "inverse recomputed")


def drawn(seed=0, *, classes=10, phases=3, rounds=2):
    targets = np.random.default_rng(7).integers(classes, size=60 * classes)
    tasks = tasks_of(classes, phases)
    return (
        targets,
        tasks,
        draw_stream(targets, tasks, rounds=rounds, rows=12, users=20, seed=seed),
    )


@pytest.mark.parametrize(
    ("seed", "classes", "phases"), [(0, 10, 3), (1, 10, 5), (2, 4, 2), (3, 7, 1)]
)
def test_rows_are_learned_before_they_are_forgotten(seed, classes, phases):
    targets, tasks, events = drawn(seed, classes=classes, phases=phases)
    within, ever = {}, set()
    for event in events:
        assert within == {
            i: event.before[i] for i in np.flatnonzero(event.before != ABSENT)
        }
        known = [within.get(i) == y for i, y in _pairs(event.forget, event)]
        assert all(known) != event.refused
        if event.refused:
            assert any(known)
            np.testing.assert_array_equal(event.before, event.labels)
            continue
        for row in event.forget:
            del within[row]
        for row, label in zip(event.learn, event.learn_labels, strict=True):
            assert row not in within
            within[row] = label
        ever |= set(event.learn)
        assert within == {
            i: event.labels[i] for i in np.flatnonzero(event.labels != ABSENT)
        }
    assert [e.name for e in events if e.kind == LEARN] == [
        e.name for e in events if "learn " in e.name and "relearn" not in e.name
    ]
    assert sum(e.kind == LEARN for e in events) == len(tasks)
    assert 12 <= len(targets) - len(ever) < len(targets) / 4


def _pairs(rows, event):
    return zip(rows, event.forget_labels, strict=True)


def test_requests_are_what_their_names_say():
    targets, tasks, events = drawn()
    assert {e.kind for e in events} == {LEARN, *KINDS}
    for event in events:
        gone = np.setdiff1d(classes_within(event.before), classes_within(event.labels))
        if event.kind == "class":
            assert len(gone) == 1
            np.testing.assert_array_equal(
                event.forget, np.flatnonzero(event.before == gone[0])
            )
        elif event.kind == "task":
            assert len(gone)
            assert any(set(gone) <= set(task) for task in tasks[1:])
        else:
            assert not len(gone)
        if event.kind == "replace":
            np.testing.assert_array_equal(event.learn, event.forget)
            assert np.all(event.learn_labels != event.forget_labels)
            np.testing.assert_array_equal(event.learn_labels, targets[event.learn])
    assert not any(event.learn.size for event in events if event.kind in DELETIONS)


def test_the_seed_decides_the_stream():
    _, _, first = drawn(4)
    _, _, again = drawn(4)
    _, _, other = drawn(5)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert [e.name for e in first] != [e.name for e in other]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": 3, "phases": 1}, "at least 4 classes"),
        ({"phases": 6}, "phases is 6"),
        ({"phases": 0}, "phases is 0"),
        ({"rounds": 0}, "at least 1 round"),
    ],
)
def test_impossible_streams_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        drawn(**change)


def test_difference_is_relative_to_the_largest_entry():
    a = np.array([[1.0, np.nan, -3.0]])
    b = np.array([[2.0, np.nan, -4.0]])
    assert difference(a, b) == 0.25
    assert difference(np.nan_to_num(a), b) == np.inf


def test_the_oracle_solves_the_normal_equations():
    """Two roads: its weights against a least-squares solver on the stacked system."""
    targets, _, events = drawn()
    features = np.random.default_rng(0).normal(size=(len(targets), 6))
    frozen = Frozen(features.astype(np.float32), 10, jax.random.key(2), 40, 0.3)
    head, event = scratch(frozen), events[-1]
    assert head.weight is not None
    found = head.weight(head.apply(head.start(), event).state)
    rows = np.flatnonzero(event.labels != ABSENT)
    kernel = random_kernel(frozen.key, 6, 40)
    x = np.asarray(expand(directions(frozen.features[rows]), kernel))
    stacked = np.concatenate([x, np.sqrt(frozen.l2) * np.eye(40)])
    here = classes_within(event.labels)
    y = np.concatenate([event.labels[rows, None] == here, np.zeros((40, len(here)))])
    expected = np.linalg.lstsq(stacked, y.astype(float))[0]
    np.testing.assert_allclose(found[:, here], expected, atol=1e-9)
    assert np.isnan(np.delete(found, here, axis=1)).all()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "ewc" else pytest.mark.slow)
        for name in NEIGHBOURS
    ],
)
def test_continual_learners_learn_and_forget_without_a_stored_row(name):
    targets, _, events = drawn(classes=4, phases=1, rounds=1)
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 12))
    features = centres[targets] + 0.3 * random.normal(size=(len(targets), 12))
    frozen = Frozen(features.astype(np.float32), 4, jax.random.key(2), 8, 0.1)
    recipe = Recipe(epochs=20, batch_size=64, learning_rate=0.5)
    options = Options({name: {"batch_size": 64}})
    head = neighbours(frozen, recipe, options)[list(NEIGHBOURS).index(name)]
    state, learn = head.start(), next(e for e in events if e.kind == LEARN)
    learnt = head.apply(state, learn).state
    here = learn.learn
    right = head.scores(learnt, features[here]).argmax(1) == learn.learn_labels
    assert right.mean() > 0.8  # a few labels are wrong on purpose
    asked = learn._replace(
        forget=here[:20],
        forget_labels=learn.learn_labels[:20],
        learn=here[:0],
        learn_labels=learn.learn_labels[:0],
    )
    done = head.apply(learnt, asked)
    assert float(done.state.rows) == len(here) - 20
    assert done.seconds > 0
    assert not np.array_equal(
        head.scores(done.state, features), head.scores(learnt, features)
    )
    assert head.stored(learn.labels) == (0, 0)
    assert head.bytes(state) < features.nbytes


def test_an_option_of_a_continual_learner_out_of_range_is_refused():
    options = Options({"ewc": {"strength": -1.0}})
    with pytest.raises(ValueError, match="strength must not be negative"):
        check_options(Recipe(), options)


def test_no_two_heads_of_the_stream_look_alike():
    heads = (SCRATCH, *RIDGE, *SGD_METHODS.values(), *NEIGHBOURS.values())
    looks = {(look(head)["color"], look(head).get("linestyle", "-")) for head in heads}
    assert len(looks) == len(heads)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One stream at scale smoke: its folder, its numbers, its requests in order."""
    results = tmp_path_factory.mktemp("results")
    assert study.run(STUDY, ["--scale", "smoke", "--results", str(results)]) == 0
    (folder,) = (results / "continual").iterdir()
    rows = study.read_results(folder).rows
    return folder, rows, rows.places("request")


def of(run, method, metric, **at):
    """A metric over the stream, where it was measured."""
    return list(run[1].values(metric, method=method, **at))


@pytest.mark.slow
def test_acu_is_the_oracle_at_every_request(run):
    requests = run[2]
    assert {request[3:8] for request in requests} >= {"learn", "forge", "repla"}
    for metric in ("weight_difference", "prediction_difference"):
        found = of(run, "ACU", metric)
        assert len(found) == len(requests)
        assert max(found) <= 1e-8
        assert max(of(run, "ACU, inverse", metric)) <= 1e-7
    for split in ("test", "retain", "forget", "unseen"):
        expected = of(run, SCRATCH, "accuracy", split=split)
        assert len(expected) >= 2
        for head in RIDGE:
            assert of(run, head, "accuracy", split=split) == expected


@pytest.mark.slow
def test_an_exact_state_has_no_history(run):
    exact = of(run, "ACU", "exact")
    assert exact == [1.0] * (len(run[2]) - 1)
    assert of(run, "ACU", "bit_identical") == [1.0] * len(run[2])
    assert max(of(run, "ACU", "residual")) < 1e-15


@pytest.mark.slow
def test_rows_never_learned_are_refused_and_nothing_changes(run):
    heads = ("ACU", "ACU, inverse", SCRATCH, *SGD_METHODS.values())
    for head in heads:
        assert of(run, head, "refused") == [1.0]
        assert of(run, head, "unharmed") == [1.0]
    # Sums without a ledger cannot know: the state is wrong from then on.
    assert of(run, "inverse recomputed", "refused") == [0.0]
    assert max(of(run, "inverse recomputed", "prediction_difference")) > 1e-3
    strange = next(r for r in run[2] if UNKNOWN in r)
    assert (
        run[1].value(
            "prediction_difference", method="inverse recomputed", request=strange
        )
        > 1e-3
    )


@pytest.mark.slow
def test_heads_trained_by_gradients_take_part_and_store_rows(run):
    for head in SGD_METHODS.values():
        assert min(of(run, head, "stored_rows")) > 100
        assert min(of(run, head, "stored_bytes")) > 0
        assert min(of(run, head, "seconds")) > 0
        assert of(run, head, "accuracy", split="test")[0] > 60
    for name in ("finetune", "ssd"):
        found = of(run, SGD_METHODS[name], "prediction_difference")
        assert found[0] == 0.0  # the first phase is the reference's own program
        assert found[-1] > 1e-3
    assert max(of(run, RETRAIN, "accuracy", split="unseen")) == 0.0
    assert max(of(run, SGD_METHODS["ssd"], "accuracy", split="unseen")) > 0.0
    for head in ("ACU", "ACU, inverse", "inverse recomputed"):
        assert set(of(run, head, "stored_rows")) == {0.0}


@pytest.mark.slow
def test_every_deletion_is_attacked_before_and_after(run):
    for head in (*RIDGE, SCRATCH, *SGD_METHODS.values()):
        for metric in ("membership_auc_before", "membership_auc"):
            found = of(run, head, metric)
            assert len(found) == len(DELETIONS)
            assert all(0 <= value <= 1 for value in found)
    # What a closed column says of a class that left is the same for all its examples.
    left = next(r for r in run[2] if "forget class" in r)
    before, after = (
        run[1].value(metric, method="ACU", request=left)
        for metric in ("membership_auc_before", "membership_auc")
    )
    assert abs(after - 0.5) < 0.2 < before


@pytest.mark.slow
def test_the_run_is_written_with_its_figure(run):
    folder = run[0]
    for name in ("tables.md", "tables.tex", "index.html"):
        assert (folder / name).stat().st_size > 200
    assert {path.stem for path in (folder / "tables").glob("*.csv")} == {
        "continual",
        "costs",
        "requests",
    }
    assert (folder / "figures" / "continual.png").stat().st_size > 20_000
    drawn_rows = (folder / "figures" / "continual.csv").read_text()
    for head in (*RIDGE, SCRATCH, *SGD_METHODS.values()):
        assert head in drawn_rows
    before = (folder / "tables.md").read_bytes()
    study.report(STUDY, folder)
    assert (folder / "tables.md").read_bytes() == before


WORDS = "--data.limit 300 --model.name mlp --model.width 8 --backbone.epochs 1"
TINY = f"{WORDS} --width 32 --phases 1 --rows 6 --users 30 --judged 40"


def test_a_head_that_fails_is_named_and_the_others_go_on(study_run, monkeypatch):
    monkeypatch.setattr(measure, "contestants", _with_a_broken_oracle)
    done = study_run(STUDY, TINY, code=1)
    broken, lost = done.rows.failures
    assert broken == "broken finished: FloatingPointError: no such number"
    assert lost == "lost finished: RuntimeError: its oracle, 'broken', failed"
    found = done.rows.where("prediction_difference", method="inverse recomputed")
    assert len(found) == len(done.rows.places("request"))
    assert max(row.value for row in found if row.at["kind"] != UNKNOWN) < 1e-9


def test_runs_that_would_train_the_same_backbone_train_it_once(study_run, monkeypatch):
    def counted(model, recipe, data, splits, *, seed):
        trained.append(len(data.targets))
        random = np.random.default_rng(seed)
        shapes = [(len(part.targets), 4) for part in splits]
        return [random.normal(size=shape).astype(np.float32) for shape in shapes]

    trained = []
    monkeypatch.setattr(backbone, "backbone_features", counted)
    monkeypatch.setattr(measure, "contestants", lambda _, frozen: [scratch(frozen)])
    first, other = (study_run(STUDY, f"{TINY} --l2 {l2}") for l2 in (0.1, 0.2))
    assert len(trained) == 1
    assert first.rows.metrics() == other.rows.metrics()
    study_run(STUDY, over(TINY.split(), ["--backbone.epochs", "2"]))
    study_run(STUDY, over(TINY.split(), ["--rows", "7"]))  # other wrong labels
    assert len(trained) == 3


def _with_a_broken_oracle(config, frozen):
    """An oracle and its head work; another one fails, and so does who refers to it."""
    oracle, other = measure.scratch(frozen), measure.naive(frozen)

    def broken(state, event):
        raise FloatingPointError("no such number")

    return [
        oracle,
        oracle._replace(name="broken", reference="broken", apply=broken),
        other._replace(name="lost", reference="broken"),
        other,
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--width 20000", "16384"),
        ("--width 0", "features"),
        ("--l2 0", "l2"),
        ("--judged 1", "judged"),
        ("--phases 9", "phases is 9"),
        ("--rows 9999", "rows"),
        ("--data.name diabetes", "classes"),
        ("--data.name fashion_mnist --data.dir nowhere", "nowhere"),
        ("--model.name linear", "model.name"),
        ("--options salun.epochs=1", "salun"),
        ("--scale tiny", "choose from"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        study.run(STUDY, [*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
