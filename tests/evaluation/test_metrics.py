import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_outputs import model

from unlearn_jax.evaluation import METRICS, References, measure
from unlearn_jax.evaluation.membership import Attack
from unlearn_jax.evaluation.metric import attack_metrics
from unlearn_jax.evaluation.outputs import Scores, SplitOutputs, stack_members

CLASSES = [name for name, m in METRICS.items() if "classification" in m.tasks]
NUMBERS = [name for name, m in METRICS.items() if "regression" in m.tasks]


@pytest.fixture(scope="module")
def models():
    rng = np.random.default_rng(0)
    oracle = model(rng, lead=2.0)
    others = [model(rng, lead=2.0, like=oracle) for _ in range(3)]
    unlearned = model(rng, lead=2.0, forget_lead=3.0, like=oracle)
    before = model(rng, lead=2.0, forget_lead=4.0, like=oracle)
    return unlearned, References(oracle, stack_members(others), before)


def _regression(seed):
    rng = np.random.default_rng(seed)
    return SplitOutputs(
        *(
            Scores(rng.normal(size=(n, 1)), np.linspace(0, 1, n))
            for n in (50, 20, 30, 30)
        )
    )


def test_every_metric_gives_finite_floats_by_known_splits(key, models):
    rows = measure(CLASSES, key, *models, task="classification")
    assert {name for name, _, _ in rows} == set(CLASSES)
    for _, split, value in rows:
        assert split in ("retain", "forget", "test", "unseen", "all")
        assert type(value) is float
        assert np.isfinite(value)


def test_every_regression_metric_gives_finite_floats(key):
    others = stack_members([_regression(2), _regression(3)])
    references = References(_regression(1), others)
    rows = measure(NUMBERS, key, _regression(0), references, task="regression")
    assert {name for name, _, _ in rows} == set(NUMBERS)
    assert all(np.isfinite(value) for _, _, value in rows)


def test_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert name == name.lower()
        assert metric.unit in ("%", "nats", "1", "targets")
        assert metric.direction in ("oracle", "up", "down")
        assert set(metric.tasks) <= {"classification", "regression"}
        assert metric.tasks
        assert metric.summary
        assert "\n" not in metric.summary


def test_the_oracle_against_itself_is_perfectly_close(key, models):
    _, references = models
    perfect = {
        "tug_of_war": 1.0,
        "average_gap": 0.0,
        "agreement": 100.0,
        "output_distance": 0.0,
        "output_divergence": 0.0,
    }
    rows = measure(
        list(perfect), key, references.oracle, references, task="classification"
    )
    for name, _, value in rows:
        assert value == perfect[name]


def test_a_value_does_not_depend_on_the_other_metrics_asked_for(key, models):
    together = measure(CLASSES, key, *models, task="classification")
    for name in ("mia_loss_balanced_accuracy", "mia_confidence", "mia_lira"):
        alone = measure([name], key, *models, task="classification")
        assert alone == [row for row in together if row[0] == name]


def test_device_and_host_arrays_give_the_same_rows(key, models):
    unlearned, references = models
    device = SplitOutputs(*(Scores(*map(jnp.asarray, s)) for s in unlearned))
    host = measure(CLASSES, key, unlearned, references, task="classification")
    assert measure(CLASSES, key, device, references, task="classification") == host


def test_failures_name_the_metric_and_the_reason(key, models):
    unlearned, references = models
    with pytest.raises(ValueError, match="no metric 'acuracy'; nearest: accuracy"):
        measure(["acuracy"], key, *models, task="classification")
    with pytest.raises(ValueError, match="'rmse' is for"):
        measure(["rmse"], key, *models, task="classification")
    alone = References(references.oracle)
    with pytest.raises(ValueError, match=r"'mia_lira': .* needs reference oracles"):
        measure(["mia_lira"], key, unlearned, alone, task="classification")
    with pytest.raises(ValueError, match=r"'aus': .* with the original, got no"):
        measure(["aus"], key, unlearned, alone, task="classification")


@pytest.mark.parametrize("name", CLASSES)
def test_outputs_that_are_not_finite_are_an_error_and_never_a_nan(key, models, name):
    unlearned, references = models
    broken = SplitOutputs(
        *(Scores(np.full_like(s.outputs, np.nan), s.targets) for s in unlearned)
    )
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure([name], key, broken, references, task="classification")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (lambda: {"forget": 1.0, "test": float("nan")}, "gave NaN for 'test'"),
        (lambda: [1.0], "gave list, expected a dict"),
        (lambda: {"forget": "much"}, "gave dict, expected a dict of numbers"),
        (lambda: {}["forget"], "KeyError: 'forget'"),
    ],
)
def test_a_metric_of_ones_own_that_gives_no_number_is_named(key, models, values, says):
    own = METRICS["accuracy"]._replace(function=lambda *given: values())
    with pytest.raises(ValueError, match=f"metric 'mine': {says}"):
        measure(["mine"], key, *models, task="classification", metrics={"mine": own})


def test_a_metric_of_ones_own_stands_beside_the_others(key, models):
    own = METRICS["accuracy"]._replace(function=lambda *given: {"all": np.float32(2)})
    table = {**METRICS, "mine": own}
    rows = measure(
        ["accuracy", "mine"], key, *models, task="classification", metrics=table
    )
    assert rows[-1] == ("mine", "all", 2.0)
    assert rows[:-1] == measure(["accuracy"], key, *models, task="classification")


def test_attack_runs_once_for_its_five_rows_and_again_for_another(key, models):
    calls = []

    def attack(key, unlearned, references):
        calls.append(unlearned)
        return Attack(0.5, 0.1, 50.0, 1.0, 0.1)

    rows = attack_metrics("mine", attack, ("classification",), "counted")
    unlearned, references = models
    order = [unlearned, references.oracle, unlearned]
    for one in order:
        values = [m.function(key, one, references)["forget"] for m in rows.values()]
        assert values == [0.5, 0.1, 50.0, 1.0, 0.1]
    assert [any(one is seen for seen in calls) for one in order] == [True] * 3
    assert len(calls) == 3
