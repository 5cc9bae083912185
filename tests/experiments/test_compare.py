"""Comparisons that build on one another, and methods that users bring along."""

import pytest

from experiments import compare
from experiments.compare.config import methods_of
from experiments.compare.contenders import parse_sweep
from experiments.frame import ensembles
from experiments.frame.config import parse
from experiments.frame.study import report
from unlearn_jax.methods import METHODS

TINY = (
    "--scale smoke --data.limit 200 --model.width 8 --recipe.epochs 1 "
    "--relearn-steps 2 --requests random:20 --seeds.train 1 --oracles 3"
)
MINE = """
from unlearn_jax import tree
from unlearn_jax.methods import METHODS
from unlearn_jax.methods.method import stateless

def shrink(learner, *, share: float = 0.5):
    def forget(key, variables, request):
        return variables._replace(params=tree.scale(1 - share, variables.params))
    return stateless(forget)
"""


@pytest.fixture
def trainings(monkeypatch):
    """How many ensembles were asked to train members that were not there."""
    counts = []
    inner = ensembles.train_ensemble

    def counted(folder, *args, **options):
        counts.append(not any(folder.glob("members-*")))
        return inner(folder, *args, **options)

    monkeypatch.setattr(ensembles, "train_ensemble", counted)
    return counts


def test_a_sweep_after_a_first_run_trains_nothing_anew(study_run, trainings):
    first = study_run(compare.STUDY, f"{TINY} --methods ssd")
    assert trainings == [True, True]
    trainings.clear()
    swept = study_run(compare.STUDY, f"{TINY} --methods ssd --sweep ssd.alpha=1,3,5")
    assert trainings == [False, False]
    assert set(swept.rows.places("method")) > {f"ssd alpha={a}" for a in (1, 3, 5)}
    # The setting that was there already is the same in every digit, its time too.
    ours = [(r.metric, r.value) for r in first.rows.where(method="ssd")]
    again = [(r.metric, r.value) for r in swept.rows.where(method="ssd alpha=5")]
    assert ours == again
    assert ours


def test_a_method_of_ones_own_competes_and_its_source_counts(
    study_run, tmp_path, trainings
):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    words = f"{TINY} --methods {file}:shrink --options {file}:shrink.share=0.25"
    done = study_run(compare.STUDY, words)
    assert done.rows.value("parameter_change", method="shrink") == pytest.approx(0.25)
    assert str(file) in done.run.inputs
    file.write_text(MINE.replace("1 - share", "1 - 2 * share"))
    trainings.clear()
    edited = study_run(compare.STUDY, words)
    assert edited.rows.value("parameter_change", method="shrink") == pytest.approx(0.5)
    assert trainings == [False, False]
    folder = max((tmp_path / "compare").iterdir())
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report(compare.STUDY, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_options_of_one_method_leave_the_presets_of_others_alone():
    presets = compare.presets.presets("digits")
    words = ["--options", "ssd.alpha=7", "scrub.epochs=3"]
    asked = parse(presets, words, prog="compare", text=None).options
    preset = presets["small"].options
    assert asked.of("ssd") == {"alpha": 7.0}
    assert asked.of("scrub") == {**preset.of("scrub"), "epochs": 3}
    others = [name for name in preset if name not in ("ssd", "scrub")]
    assert len(others) > 10
    assert all(asked.of(name) == preset.of(name) for name in others)


def test_a_sweep_of_two_options_is_their_grid():
    swept = parse_sweep(["scrub.epochs=1,2", "scrub.learning_rate=0.1,0.2"], ["scrub"])
    assert swept["scrub"] == [
        {"epochs": e, "learning_rate": r} for e in (1, 2) for r in (0.1, 0.2)
    ]


def test_all_stands_for_every_method_that_can_do_the_task():
    able = [n for n, entry in METHODS.items() if "regression" in entry.tasks]
    assert list(methods_of(("all",), "regression")) == able
    assert list(methods_of(("all",), "classification")) == list(METHODS)
    both = methods_of(("mine.py:shrink", "all", "ssd"), "classification")
    assert list(both) == [*METHODS, "mine.py:shrink"]
    assert methods_of(("scrub", "ssd"), "regression") == ("scrub", "ssd")
