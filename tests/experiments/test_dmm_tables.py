"""What the study of distributions computes from margins."""

import numpy as np
import pytest
from results.fake_records import fake_run

from experiments.dmm.config import Config
from experiments.dmm.judge import judged, scored
from experiments.dmm.measure import CONTROL, ORIGINAL
from experiments.dmm.show import chosen_settings, lines_of, show
from experiments.dmm.unlearn import Answers
from experiments.frame.study import Results
from unlearn_jax.results.rows import Row, Rows

MODELS, FORGOTTEN, OTHERS = 16, 60, 40
SPLIT = np.repeat(["forget", "retain", "validation"], [FORGOTTEN, OTHERS, OTHERS])


def noise(seed):
    return np.random.default_rng(seed).normal(size=(MODELS, len(SPLIT)))


def rows_of(contenders, shift=0.0, seed=0):
    """Originals, two sets of oracles ``shift`` away from them, and contenders."""
    before, truth = noise([seed, 0]), noise([seed, 1]) + shift
    margins = {
        (ORIGINAL, ""): before,
        (CONTROL, ""): noise([seed, 2]) + shift,
        **contenders,
    }
    for split, count in (("forget", 60.0), ("retain", 500.0)):
        yield Row("examples", count, "1", {"request": "one", "split": split})
    for (family, setting), own in margins.items():
        at = {"request": "one", "method": family, "setting": setting}
        rows = [
            *judged(SPLIT, own, truth, before),
            *scored(SPLIT, answers(own), answers(truth)),
        ]
        for row in rows:
            yield row._replace(at={**at, **row.at})


def answers(margins):
    return Answers(margins, margins > 0)


def lines(*given, **options):
    return lines_of(Rows(rows_of(*given, **options)))["one"]


def test_models_without_any_effect_do_not_agree_with_the_oracles():
    found = []
    for seed in range(12):
        fresh = {("fresh", ""): noise([seed, 3])}
        found.append(lines(fresh, seed=seed)["fresh", ""]["agreement", ""])
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error
    assert error < 0.05  # shared originals would give 0.5


def test_the_oracles_own_change_agrees_and_lies_at_the_control():
    shift = np.linspace(-9, 9, len(SPLIT))
    moved = {("moved", ""): noise([0, 0]) + shift, ("still", ""): noise([0, 0])}
    found = lines(moved, shift)
    assert found["moved", ""]["agreement", ""] > 0.95
    assert ("agreement", "") not in found["still", ""]
    assert found["still", ""]["size", ""] == 0.0
    control, original = found[CONTROL, ""], found[ORIGINAL, ""]
    for split in ("forget", "retain", "validation"):
        moved_away = found["moved", ""]["klom_p50", split]
        assert moved_away == pytest.approx(control["klom_p50", split], rel=0.5)
        assert original["klom_p50", split] > 1.3 * control["klom_p50", split]


def test_a_diverged_setting_is_the_worst_and_not_chosen():
    good, bad = noise([0, 3]), noise([0, 4])
    bad[0] = np.nan
    bad[1:] = np.inf
    rows = Rows(rows_of({("m", "bad"): bad, ("m", "good"): good}))
    found = lines_of(rows)["one"]
    wild, calm = found["m", "bad"], found["m", "good"]
    assert wild["klom_p50", "forget"] > 2 * calm["klom_p50", "forget"]
    assert np.all(np.isfinite(list(wild.values())))
    assert chosen_settings(found)["m"] == "good"
    (finding,) = show(Config(originals=MODELS), Results(fake_run(), rows, {}))
    names = [[row[0].text, row[-1].text] for row in finding.tables[0].rows]
    dash = "\N{EN DASH}"
    assert names == [
        ["floor (simulated)", dash],
        [CONTROL, dash],
        [ORIGINAL, dash],
        ["m", "good"],
    ]
    assert "60 examples" in finding.tables[0].caption
    (drawing,) = finding.drawings
    assert [row["chosen"] for row in drawing.rows] == [True, True, False, True] * 2


def test_the_score_weighs_points_by_accuracies_and_oracles_are_its_control():
    moved = {("moved", ""): noise([0, 0]) + 9.0, ("half", ""): noise([0, 0]) + 1.0}
    found = lines(moved, 9.0)
    control, before = found[CONTROL, ""], found[ORIGINAL, ""]
    quality = "forgetting_quality", ""
    assert before[quality] == 0.0  # nine deviations apart
    assert before["epsilon", ""] == 50
    assert found["half", ""][quality] < 0.1 * control[quality]
    assert 0 < control[quality] < 1
    assert found["moved", ""][quality] == pytest.approx(control[quality], rel=0.5)
    half, truth = found["half", ""], answers(noise([0, 1]) + 9.0).right
    shares = (half["accuracy", part] for part in ("retain", "validation"))
    expected = half[quality]
    for part, share in zip(("retain", "validation"), shares, strict=True):
        expected *= share / (100 * truth[:, part == SPLIT].mean())
    assert half["final_score", ""] == pytest.approx(expected)
    (finding,) = show(
        Config(originals=MODELS), Results(fake_run(), Rows(rows_of(moved, 9.0)), {})
    )
    assert [one.name for one in finding.tables] == ["dmm-one", "score-one"]
    assert finding.tables[1].rows[0][0].text == CONTROL


def test_one_original_for_all_has_no_agreement():
    before, truth = noise([0, 0]), noise([0, 1])
    names = {row.metric for row in judged(SPLIT, before, truth, None)}
    assert "unlearning_lira" in names
    assert not names & {"agreement", "size"}
