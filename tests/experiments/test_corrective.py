"""Corrective unlearning: the rule for strengths, and the study at tiny size."""

from typing import NamedTuple

import pytest
import tiny

from experiments import corrective
from experiments.corrective.contestants import STRENGTHS, contestant, search
from experiments.frame.options import Options, hyperparameters
from experiments.frame.study import run
from unlearn_jax.methods import METHODS
from unlearn_jax.results.plot_corrective import corrective_figure


class Fake(NamedTuple):
    """A model that is only its agreements: forget and retain."""

    forget: float
    retain: float


@pytest.mark.parametrize(
    ("offered", "chosen", "tried"),
    [
        ([(0.9, 1.0), (0.15, 0.95), (0.0, 0.95)], 1, 2),  # the weakest that suffices
        ([(0.9, 1.0), (0.5, 0.95), (0.0, 0.3)], 1, 3),  # the last one harms
        ([(0.6, 0.95), (0.8, 0.95)], 0, 2),  # none suffices: the nearest
        ([(0.0, 0.1), (0.0, 0.0)], 0, 1),  # all harm: the weakest
    ],
)
def test_the_strength_is_the_weakest_that_suffices(offered, chosen, tried):
    def attempt(place):
        return Fake(*offered[place]), 1.0

    found, strength, left, seconds = search(
        range(len(offered)), attempt, tuple, goal=0.2, least=0.9
    )
    assert strength == chosen
    assert found == Fake(*offered[chosen])
    assert left == offered[chosen][0]
    assert seconds == tried


def test_strengths_are_hyper_parameters_and_an_option_ends_the_search():
    learner = tiny.learner("softmax")
    for name, (word, values) in STRENGTHS.items():
        assert word in hyperparameters(METHODS[name].factory)
        found = contestant(learner, name, Options(), most=2, rho=0.2)
        assert len(found) == 2
        assert set(found) < set(values)
    fixed = Options({"ssd": {"alpha": 3.0}})
    assert set(contestant(learner, "ssd", fixed, most=0, rho=0.2)) == {None}


@pytest.mark.slow
def test_study_end_to_end(study_run):
    """Where all is known, retraining heals the backdoor that the original has."""
    words = "--scale smoke --data.limit 300 --recipe.epochs 12 --model.width 16 "
    words += "--kinds backdoor --methods retrain ssd gradient_ascent --backdoor 30 "
    words += "--shares 1 --strengths 2 --options gradient_ascent.learning_rate=1e30 "
    words += "--clean 40"
    rows = study_run(corrective.STUDY, words, code=1).rows
    (failed,) = [row for row in rows if row.failure]
    assert failed.at["method"] == "gradient_ascent"
    assert "NaN" in failed.failure
    original, healed = rows.where(method="original"), rows.where(method="retrain")
    assert original.value("accuracy", split="corrected") < 40
    assert original.value("accuracy", split="retained") > 60
    assert healed.value("accuracy", split="corrected") > 60
    assert healed.value("agreement") <= 20
    assert rows.value("strength", method="ssd") in STRENGTHS["ssd"][1]
    curve = rows.values("exposed_accuracy")
    assert curve[0] > 60
    assert len(rows.places("step")) == len(curve) > 3
    assert curve[-2] < curve[0] - 20  # the last one is of the closed form
    assert rows.value("exposed_attack", step="0") > 50


def test_the_figure_takes_one_seed_and_unknown_methods():
    rows = [
        {
            "kind": kind,
            "split": split,
            "method": method,
            "share": share,
            "value": 50.0,
            "stderr": float("nan"),
        }
        for kind in ("backdoor", "confusion")
        for split in ("corrected", "retained")
        for method, share in (("original", 0.0), ("salun", 0.1), ("salun", 1.0))
    ]
    figure = corrective_figure(rows)
    assert len(figure.axes) == 4
    lines = [line for panel in figure.axes for line in panel.lines]
    assert len(lines) == 8


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--kinds noise", "backdoor, confusion"),
        ("--methods nothing", "expected one of identity, "),
        ("--methods source_removal", "reads a trace"),
        ("--shares 0.5 1.5", "shares is 1.5; expected 0 to 1"),
        ("--backdoor 9999", "expected 1 to"),
        ("--confusion 7", "even size"),
        ("--patch 9", "does not fit"),
        ("--target 10", "0 to 9"),
        ("--keep 2", "keep is 2.0; expected 0 to 1"),
        ("--clean 360", "expected fewer, since the others judge"),
        ("--clean -1", "clean is -1; expected at least 0"),
        ("--model.name tree", "no model"),
        ("--data.name diabetes", "no data set 'diabetes' for classification"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    with pytest.raises(ValueError, match=says):
        run(corrective.STUDY, [*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
