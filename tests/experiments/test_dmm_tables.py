"""What the study of distributions computes from margins."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments._dmm_run import CONTROL, ORACLE, ORIGINAL, Judged
from experiments._dmm_setting import Config
from experiments._dmm_tables import chosen_settings, lines_of, notes_of

MODELS, FORGOTTEN, OTHERS = 16, 60, 40
SPLIT = np.repeat(["forget", "retain", "validation"], [FORGOTTEN, OTHERS, OTHERS])
CONFIG = Config(requests=("one",), originals=MODELS)


def noise(seed):
    return np.random.default_rng(seed).normal(size=(MODELS, len(SPLIT)))


def lines(contenders, shift=0.0, seed=0):
    """Originals, two sets of oracles ``shift`` away from them, and contenders."""
    asked = SimpleNamespace(
        name="one",
        forget=np.arange(FORGOTTEN),
        request=SimpleNamespace(retain=SimpleNamespace(targets=np.zeros(500))),
        points=SimpleNamespace(split=SPLIT),
    )
    margins = {
        (ORIGINAL, ""): noise([seed, 0]),
        (ORACLE, ""): noise([seed, 1]) + shift,
        (CONTROL, ""): noise([seed, 2]) + shift,
        **contenders,
    }
    judged = {("one", *key): Judged(value, 1.0) for key, value in margins.items()}
    every = [
        SimpleNamespace(family=f, setting=s, gradients=lambda lost, kept: lost + kept)
        for f, s in contenders
    ]
    trained = SimpleNamespace(asked=[asked])
    found = lines_of(CONFIG, trained, judged, every)
    return {(line.family, line.setting): line for line in found}


def test_models_without_any_effect_do_not_agree_with_the_oracles():
    found = []
    for seed in range(30):
        fresh = {("fresh", ""): noise([seed, 3])}
        found.append(lines(fresh, seed=seed)["fresh", ""].agreement)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error
    assert error < 0.03  # shared originals would give 0.5


def test_the_oracles_own_change_agrees_and_lies_at_the_control():
    shift = np.linspace(-9, 9, len(SPLIT))
    moved = {("moved", ""): noise([0, 0]) + shift, ("still", ""): noise([0, 0])}
    found = lines(moved, shift)
    assert found["moved", ""].agreement > 0.95
    assert np.isnan(found["still", ""].agreement)
    control, original = found[CONTROL, ""], found[ORIGINAL, ""]
    for split in ("forget", "retain", "validation"):
        moved_away = found["moved", ""].klom[split].p50
        assert moved_away == pytest.approx(control.klom[split].p50, rel=0.5)
        assert original.klom[split].p50 > 1.3 * control.klom[split].p50
    assert found["moved", ""].gradients == 500
    assert control.gradients is None
    assert (CONTROL, "") in found
    assert (ORACLE, "") not in found


def test_a_diverged_setting_is_the_worst_and_not_chosen():
    good, bad = noise([0, 3]), noise([0, 4])
    bad[0] = np.nan
    bad[1:] = np.inf
    found = lines({("m", "good"): good, ("m", "bad"): bad})
    wild, calm = found["m", "bad"], found["m", "good"]
    assert wild.klom["forget"].p50 > 2 * calm.klom["forget"].p50
    assert chosen_settings(CONFIG, [wild, calm])["m"] == "good"
    notes = notes_of([wild], {"m": "good"})
    assert {note.method for note in notes} == {"m (bad)"}
    assert all(np.isfinite(note.value) for note in notes)
