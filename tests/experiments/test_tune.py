"""Settings are chosen by what a deployment sees, among equally many for each method."""

import dataclasses
import math
import types

import numpy as np
import pytest

from experiments import tune
from experiments.frame.options import Options
from experiments.frame.requests import draw_request
from experiments.frame.study import report
from experiments.tune.criteria import CRITERIA, Tried, for_all
from experiments.tune.grids import GRIDS, beginning, settings
from experiments.tune.halves import case_in_halves, in_halves
from experiments.tune.signals import UNITS
from unlearn_jax.methods import METHODS
from unlearn_jax.results.rows import Row, Rows

PRESETS = tune.config.presets("digits")
TINY = (
    "--scale smoke --data.limit 200 --model.width 8 --recipe.epochs 2 --requests "
    "random:20 --seeds.train 2 --oracles 3 --trials 3 --margin 5"
)


def tried(**signals):
    """Four trials: preset, default, one that forgets too much, one not finite."""
    given = {
        "retain_accuracy": [99.9, 99.5, 80.0, math.nan],
        "validation_accuracy": [97.5, 97.2, 70.0, math.nan],
        "forget_accuracy": [100.0, 97.0, 0.0, math.nan],
        "held_out_accuracy": [97.0, 97.0, 70.0, math.nan],
        "forget_loss": [0.1, 0.3, 5.0, math.nan],
        "held_out_loss": [0.2, 0.25, 1.0, math.nan],
        "attack": [0.7, 0.55, 0.49, math.nan],
        "agreement_forget": [93.0, 96.0, 10.0, math.nan],
        "agreement_validation": [95.0, 94.0, 60.0, math.nan],
    } | signals
    original = {"retain_accuracy": 100.0, "validation_accuracy": 98.0}
    values = {name: np.array(own) for name, own in given.items()}
    return Tried(["preset", "default", "a=1", "a=2"], values, original, 1.0)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("published default", 1),
        ("preset", 0),
        ("most forgetting", 1),
        ("attack", 2),
        ("attack, in margin", 1),
        ("small oracles", 1),
        ("early stopping", 1),
    ],
)
def test_each_criterion_takes_the_trial_that_it_says(criterion, expected):
    assert set(tried().signals) == set(UNITS)
    assert CRITERIA[criterion].choose(tried()) == expected


def test_where_no_trial_is_within_the_margin_the_least_harm_is_taken():
    harmed = tried(retain_accuracy=[90.0, 95.0, 80.0, math.nan])
    for name in ("most forgetting", "attack, in margin"):
        assert CRITERIA[name].choose(harmed) == 1


def test_where_nothing_reaches_the_held_out_loss_the_strongest_is_taken():
    gentle = tried(forget_loss=[0.1, 0.2, 0.5, math.nan], held_out_loss=[1.0] * 4)
    assert CRITERIA["early stopping"].choose(gentle) == 2


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
def test_every_method_has_as_many_trials_and_no_two_are_the_same(data):
    for config in tune.config.presets(data).values():
        made = tune.trials.trials(config, "classification")
        for method in config.methods:
            own = [one for one in made if one.method == method]
            names = [tune.trials.trial_of(one) for one in own]
            assert len(set(names)) == len(names)
            # The preset is one of them, or behind them where no criterion sees it.
            assert len(own) - config.trials == (names.index("preset") == config.trials)
            preset = own[names.index("preset")]
            assert preset.options.items() >= config.options.of(method).items()


@pytest.mark.parametrize("method", GRIDS)
def test_a_grid_changes_one_option_and_keeps_its_type(method):
    begun = beginning(method, PRESETS["small"].recipe)
    known = tune.grids.hyperparameters(METHODS[method].factory)
    for changed in settings(method, begun):
        ((name, value),) = changed.items()
        default = known[name].default
        assert type(value) is (float if default is None else type(default))
        assert value != begun.get(name, default) or isinstance(default, int)


def test_what_descends_begins_as_its_data_were_trained():
    recipe = PRESETS["small"].recipe
    trained = {"learning_rate": recipe.learning_rate, "batch_size": recipe.batch_size}
    assert beginning("finetune", recipe) == trained
    assert beginning("ssd", recipe) == {}


def test_the_choice_never_begins_with_what_an_oracle_chose():
    """Other presets move no trial but their own."""
    config = dataclasses.replace(PRESETS["small"], methods=("finetune", "ssd"))
    told = {"finetune": {"learning_rate": 0.77}, "ssd": {"alpha": 77.0}}
    other = dataclasses.replace(config, options=Options(told))
    for method in config.methods:
        own, moved = (
            [
                made.options
                for made in tune.trials.trials(one, "classification")
                if made.method == method and tune.trials.trial_of(made) != "preset"
            ]
            for one in (config, other)
        )
        assert len(moved) == config.trials
        assert all(options in moved for options in own)


def test_one_setting_for_all_agrees_most_on_the_mean():
    """Best on one request and worst on the other is worse than second on both."""
    first = tried(agreement_forget=[90.0, 99.0, 10.0, math.nan])
    second = tried(agreement_forget=[90.0, 10.0, 99.0, math.nan])
    validation = np.array([95.0, 95.0, 95.0, math.nan])
    for one in (first, second):
        one.signals["agreement_validation"][:] = validation
    assert for_all([first]) == 1
    assert for_all([first, second]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 40}, "different settings for 40 trials"),
        ({"methods": ("identity",)}, "identity has 1 different settings"),
        ({"requests": ("class:3",), "data": {"limit": 40}}, "test examples in one"),
        ({"data": {"name": "diabetes"}}, "regression"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_sentence(change, message):
    config = PRESETS["smoke"]
    if "data" in change:
        change = change | {"data": dataclasses.replace(config.data, **change["data"])}
    with pytest.raises(ValueError, match=message) as told:
        tune.trials.build(dataclasses.replace(config, **change))
    assert len(str(told.value).splitlines()) == 1


def test_halves_share_nothing_and_lose_nothing():
    mask = np.random.default_rng(0).random(101) < 0.4
    first, second = in_halves(mask)
    assert not (first & second).any()
    assert np.array_equal(first | second, mask)
    assert abs(int(first.sum()) - int(second.sum())) <= 1


@pytest.fixture(scope="module")
def problem():
    words = {"requests": ("random:0.1",), "share": 0.25, "surrogates": 3}
    setting = tune.trials.build(dataclasses.replace(PRESETS["smoke"], **words))
    case = tune.measure.case_of(setting, setting.asked[0], lambda _: None, seed=100)
    return setting, case


def test_the_forget_set_is_none_of_another_table(problem):
    setting, case = problem
    known = draw_request(setting.asked[0], setting.dataset)
    assert len(case.forget) == len(known)
    assert len(np.intersect1d(case.forget, known)) < len(known) / 2


def test_small_oracles_see_their_share_and_nothing_forgotten(problem, monkeypatch):
    setting, case = problem
    seen = []
    monkeypatch.setattr(tune.measure, "trained", lambda *given: seen.append(given[-1]))
    tune.measure.small_oracles(None, setting, case_in_halves(case)[0])
    (weights,) = seen
    staying = len(setting.train.targets) - len(case.forget)
    assert weights.shape == (3, len(setting.train.targets))
    assert not weights[:, case.forget].any()
    assert (weights.sum(axis=1) == round(0.25 * staying)).all()
    assert not np.array_equal(weights[0], weights[1])


def test_a_model_that_is_not_finite_on_one_seed_is_infinitely_far(monkeypatch):
    monkeypatch.setattr(tune.measure.checks, "distance", lambda *_: 0.0)
    contender = types.SimpleNamespace(name="ssd", method="ssd", options={})
    setting = types.SimpleNamespace(contenders=[contender])
    at = {"method": "ssd", "split": "", "unlearn_seed": 0, "evaluate_seed": 0}
    for value, expected in ((0.5, 0.0), (math.nan, math.inf)):
        rows = Rows(
            Row("attack", number, "1", {**at, "train_seed": seed})
            for seed, number in enumerate((0.5, value))
        )
        told = Rows(tune.measure._told(setting, "class:5", rows))
        assert told.value("distance", method="ssd") == expected


def test_a_run_tells_signals_distances_and_regrets(study_run, tmp_path):
    # A rate that diverges is one more trial, and nobody's choice but the worst.
    sweep = ["--sweep", "gradient_ascent.learning_rate=1e30"]
    preset = ["--options", "ssd.alpha=3.7"]
    done = study_run(tune.STUDY, [*TINY.split(), *sweep, *preset])
    rows = done.rows
    assert set(rows.metrics()) == {"distance", *UNITS}
    assert rows.value("distance", trial="learning_rate=1e+30") == math.inf
    assert np.isnan(rows.values("attack", trial="learning_rate=1e+30")).all()
    config = dataclasses.replace(PRESETS["smoke"], margin=5.0)
    for method in config.methods:
        own = tune.show.chosen(config, rows, method)
        # Beside three trials that of the preset, where it is none of them.
        count = {"gradient_ascent": 3, "ssd": 4}[method]
        assert len(rows.where("distance", method=method)) == count
        assert len(rows.where("attack", method=method)) == 2 * count
        for name in CRITERIA:
            assert own.regret(name) >= 0
        fixed = own.trials.index("preset")
        assert own.choices["preset"] == [fixed, fixed]
    folder = max((tmp_path / "tune").iterdir())
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report(tune.STUDY, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
