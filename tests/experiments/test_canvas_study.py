"""The study of erased digits: what its editors do to prompts, and what is shown."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import canvas
from experiments.canvas.config import presets
from experiments.canvas.editors import EDITORS, SHOWN, Concept, sentences_of
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
    setting = canvas.measure.build(CONFIG)
    grammar = setting.canvas.grammar
    none = Variables({}, {})
    return Concept(setting.denoiser, none, grammar, CONFIG.target, CONFIG.anchor)


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

    edited = {name: one(name) for name in SHOWN}
    target, anchor = concept.plain(CONFIG.target), concept.plain(CONFIG.anchor)
    others = concept.others()
    places = (3, 4, 5)
    for name in ("uce", "rece", "uce, preserving nothing"):
        after, before = gap(concept, edited[name], target, anchor, places)
        assert after < 0.6 * before, name
    # What is preserved costs nothing before the edit, so the rest can only shrink.
    sentences = [
        sentences_of(concept, label) for label in (CONFIG.target, CONFIG.anchor)
    ]
    after, before = gap(concept, edited["uce, paraphrases"], *sentences, None)
    assert after < before
    moved = {
        name: gap(concept, maps, others, others, None)[0]
        for name, maps in edited.items()
    }
    assert moved["uce"] < moved["uce, preserving nothing"]
    assert moved["uce"] < 0.5 * moved["noise"]
    size = [
        float(tree.norm(tree.subtract(edited[name], concept.maps)))
        for name in ("uce", "noise")
    ]
    assert size[0] == pytest.approx(size[1], rel=1e-4)
    assert min(moved.values()) > 0


def test_prompts_are_those_of_the_class_and_all_others(concept):
    plain = concept.plain(3)
    styles = np.arange(4)
    np.testing.assert_array_equal(
        plain, captions(concept.grammar, styles, np.full(4, 3))
    )
    others = {tuple(row) for row in concept.others()}
    assert len(others) == 4 * 9 + 1
    assert not others & {tuple(row) for row in plain}


def test_every_editor_is_a_program_of_the_generator(concept):
    like = jax.eval_shape(concept.denoiser.model.init, jax.random.key(0))
    maps = jax.eval_shape(lambda v: concept._replace(variables=v).maps, like)
    for name, editor in EDITORS.items():
        made = jax.eval_shape(lambda v: editor(concept._replace(variables=v)), like)  # noqa: B023
        assert made == maps, name


def test_the_table_names_where_the_target_went_and_the_picture_has_every_row():
    names = ["original", "oracle 0", "oracle 1", *CONFIG.methods]
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
    for options in ({"anchor": 3}, {"target": 10}):
        with pytest.raises(ValueError, match="expected two of the classes 0 to 9"):
            canvas.measure.build(dataclasses.replace(CONFIG, **options))
