"""The study of erased digits: what its editors do to prompts, and what is shown."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import canvas
from experiments.canvas.config import presets
from experiments.canvas.deactivate import LEARNERS
from experiments.canvas.editors import EDITORS, Concept, edited_by
from experiments.canvas.generators import oracle_names
from experiments.canvas.guard import GUARDS
from experiments.canvas.request import KINDS
from experiments.frame.study import Results
from unlearn_jax import tree
from unlearn_jax.data.captions import captions
from unlearn_jax.methods.editing.maps import outputs
from unlearn_jax.results.plot_canvas import grid_figure
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.run import new_run
from unlearn_jax.types import Variables

CONFIG = presets("any")["smoke"]


@pytest.fixture(scope="module")
def concept():
    """Of a generator without parameters: enough to write prompts."""
    setting = canvas.setting.build(CONFIG)
    return Concept(setting.denoiser, Variables({}, {}), setting.wanted)


def gap(concept, maps, asked, wanted, places):
    """How far outputs are from what they should be, and how far they were."""
    aim = outputs(concept.maps, concept.keys(wanted, places))
    told = concept.keys(asked, places)
    return [
        float(np.linalg.norm(outputs(each, told) - aim))
        for each in (maps, concept.maps)
    ]


@pytest.mark.slow
def test_editors_move_the_target_to_the_anchor_and_leave_the_others(concept):
    variables = concept.denoiser.model.init(jax.random.key(0))
    concept = concept._replace(variables=variables)

    def one(name):
        return jax.jit(lambda v: EDITORS[name](concept._replace(variables=v)))(
            variables
        )

    edited = {name: one(name) for name in EDITORS}
    target, anchor = concept.wanted.plain(), concept.wanted.anchors()
    others = concept.wanted.others()
    places = (3, 4, 5)
    for name in ("uce", "rece", "uce: preserving nothing"):
        after, before = gap(concept, edited[name], target, anchor, places)
        assert after < 0.6 * before, name
    # What is preserved costs nothing before the edit, so the rest can only shrink.
    sentences = concept.wanted.sentences()[:2]
    after, before = gap(concept, edited["uce: paraphrases"], *sentences, None)
    assert after < before
    moved = {
        name: gap(concept, maps, others, others, None)[0]
        for name, maps in edited.items()
    }
    assert moved["uce"] < moved["uce: preserving nothing"]
    assert moved["uce"] < 0.5 * moved["noise"]
    size = [
        float(tree.norm(tree.subtract(edited[name], concept.maps)))
        for name in ("uce", "noise")
    ]
    assert size[0] == pytest.approx(size[1], rel=1e-4)
    assert all((moved[name] > 0) == (name not in GUARDS) for name in moved)


def test_prompts_are_those_of_the_class_and_all_others(concept):
    plain = concept.wanted.plain()
    styles = np.arange(4)
    np.testing.assert_array_equal(
        plain, captions(concept.wanted.grammar, styles, np.full(4, 3))
    )
    sentences, anchors, kept = concept.wanted.sentences()
    assert len(sentences) == len(anchors) == len(kept) // 9
    differ = sentences != anchors
    assert np.all(differ.sum(1) == 1)
    others = {tuple(row) for row in concept.wanted.others()}
    assert len(others) == 4 * 9 + 1
    assert not others & {tuple(row) for row in plain}


@pytest.mark.parametrize("request_kind", KINDS)
def test_every_editor_is_a_program_of_the_generator(concept, request_kind):
    concept = concept._replace(wanted=concept.wanted._replace(kind=request_kind))
    like = jax.eval_shape(concept.denoiser.model.init, jax.random.key(0))
    for name in EDITORS if request_kind == "pair" else ("uce", "time"):
        made = jax.eval_shape(
            lambda v: edited_by(name, concept._replace(variables=v)),  # noqa: B023
            like,
        )
        assert made == like, name


def test_a_guard_reads_prompts_by_its_own_names_for_what_is_erased(concept):
    like = jax.eval_shape(concept.denoiser.model.init, jax.random.key(0))
    tokens = concept.wanted.plain()
    for kind in KINDS:
        own = concept._replace(wanted=concept.wanted._replace(kind=kind))
        for name, guard in GUARDS.items():
            if name in LEARNERS:  # tests/experiments/test_canvas_deactivate.py
                continue
            read = jax.eval_shape(
                lambda v: guard(own._replace(variables=v), tokens),  # noqa: B023
                like,
            )
            assert read.first.shape == read.later.shape == (4, 6, 16), name
            assert read.steps.shape == (4,), name


def test_a_request_tells_its_own_from_others_by_class_by_style_and_by_pair(concept):
    classes, styles = np.indices((10, 4)).reshape(2, -1)
    for kind, own, names, place in (
        ("class", 4, "three", 3),
        ("style", 10, "striped", 1),
        ("pair", 1, "striped three", 3),
    ):
        wanted = concept.wanted._replace(kind=kind)
        mine = wanted.numbers(classes, styles) == wanted.target
        assert mine.sum() == own == len(wanted.plain())
        assert len(wanted.others()) == 40 - own + 1
        assert wanted.name == names == wanted.titles[wanted.target]
        assert len(wanted.titles) == wanted.size
        changed = np.flatnonzero(np.any(wanted.plain() != wanted.anchors(), axis=0))
        assert list(changed) == [place] == list(wanted.words)
    # An image that one judge is silent about is no pair.
    silent = concept.wanted._replace(kind="pair").numbers([-1, 3, 3], [2, -1, 2])
    assert list(silent) == [-1, -1, 3 * 4 + 2]


def test_the_table_names_where_the_target_went_and_the_picture_has_every_row():
    names = ["original", *oracle_names(CONFIG.oracles), *CONFIG.methods]
    rows = []
    for number, name in enumerate(names):
        for prompts in ("plain", "paraphrase"):
            at = {"method": name, "prompts": prompts}
            for metric in ("unlearned", "in_domain", "cross_domain", "rejected"):
                rows.append(Row(metric, 0.1 * number, "1", at))
            for place in range(11):
                share = 0.75 if place == (3 if name == "original" else 8) else 0.025
                rows.append(Row("went", share, "1", {**at, "to": place}))
        rows.append(Row("attack", 0.5, "1", {"method": name}))
    for kind in ("class", "style"):
        at = {"method": "held-out images", "kind": kind}
        rows += [
            Row("judge_accuracy", 0.99, "1", at),
            Row("judge_rejects", 0.02, "1", at),
        ]
    images = np.zeros((9, 8, 8, 1), np.float32)
    arrays = {f"grid/{name}": images for name in names}
    arrays["shown"] = np.stack([np.arange(9), np.arange(9) % 4], 1)
    run = new_run("canvas", "smoke", CONFIG, dataset="digits")
    (finding,) = canvas.show.show(CONFIG, Results(run, Rows(rows), arrays))
    told = finding.tables[0].to_markdown()
    lines = {
        line.split("|")[1].strip(): line for line in told.splitlines() if "|" in line
    }
    assert "three 75 %" in lines["original"]
    assert "eight 75 %" in lines["uce"]
    assert "oracle vs oracle" in lines
    assert "99.0%" in finding.words[0]
    assert len(finding.drawings[0].figure.axes) == 9 * len(names)
    with pytest.raises(ValueError, match="one for each"):
        grid_figure({"a": images}, ["one"], "")


def test_a_class_cannot_be_its_own_anchor():
    for options in ({"anchor": 3}, {"target": 10}, {"target": 11}):
        with pytest.raises(ValueError, match="expected two of 0 to 9: zero, one"):
            canvas.setting.build(dataclasses.replace(CONFIG, **options))
