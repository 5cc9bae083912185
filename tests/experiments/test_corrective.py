"""Corrective unlearning: Potion, the rule for strengths, and the study at tiny size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import _corrective, corrective
from experiments._corrective_methods import (
    STRENGTHS,
    Contestant,
    agreement,
    contestants,
    potion,
)
from experiments.frame.options import hyperparameters
from unlearn_jax import tree
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.results.plot_corrective import corrective_figure
from unlearn_jax.results.record import read_records


@pytest.fixture(scope="module")
def corrected():
    """A net, a request for the examples of one class, and what Potion makes of it."""
    learner = tiny.learner("mlp")
    data = jax.tree.map(jnp.asarray, tiny.examples())
    request = make_request(data, np.flatnonzero(data.targets == 1))
    method = potion(learner, rho=0.5, importance_batch=8)

    @tiny.quick_jit
    def run(key):
        start = learner.model.init(key)

        def step(_, params):
            slope = jax.grad(
                lambda p: jnp.mean(
                    learner.loss(
                        learner.model.apply(start._replace(params=p), data.inputs),
                        data.targets,
                    )
                )
            )(params)
            return jax.tree.map(lambda x, g: x - 0.5 * g, params, slope)

        params = jax.lax.fori_loop(0, 100, step, start.params)
        original = start._replace(params=params)
        state = method.prepare(key, original, data)
        found, _ = method.forget(key, state, original, request)
        shares = [agreement(learner, v, request.forget) for v in (original, found)]
        return original, found, shares

    return run(jax.random.key(0))


def test_potion_stops_once_the_forget_set_is_forgotten(corrected):
    _, _, (before, after) = corrected
    assert before > 0.9
    assert after <= 0.5 * before


def test_potion_shrinks_some_parameters_and_moves_no_other(corrected):
    original, found, _ = corrected
    pairs = list(
        zip(
            jax.tree.leaves(original.params),
            jax.tree.leaves(found.params),
            strict=True,
        )
    )
    assert all((np.abs(new) <= np.abs(old)).all() for old, new in pairs)
    assert all((np.asarray(old * new) >= 0).all() for old, new in pairs)
    moved = sum(int(np.sum(np.asarray(old != new))) for old, new in pairs)
    assert 0 < moved < tree.size(original.params)


def test_agreement_counts_what_has_weight():
    learner = tiny.learner("softmax")
    data = jax.tree.map(jnp.asarray, tiny.examples(count=12))
    variables = learner.model.init(jax.random.key(0))
    weights = jnp.ones(12).at[:5].set(0)
    found = agreement(learner, variables, data._replace(weights=weights))
    guesses = np.argmax(data.inputs @ variables.params["kernel"], axis=-1)
    np.testing.assert_allclose(found, np.mean((guesses == data.targets)[5:]))


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
    class Model:
        def agreement(self, variables, data):
            return getattr(variables, data)

        def programs(self, name, function, *arguments):
            return (function(), ()), 1.0

    rule = corrective.Config(rho=0.2, keep=0.9)
    forgets = tuple(lambda pair=pair: Fake(*pair) for pair in offered)
    contestant = Contestant(None, tuple(range(len(offered))), forgets)
    request = type("Names", (), {"forget": "forget", "retain": "retain"})
    found, seconds, strength, left = _corrective._search(
        rule, Model(), 0, "fake", contestant, Fake(1.0, 1.0), None, request
    )
    assert strength == chosen
    assert found == Fake(*offered[chosen])
    assert left == offered[chosen][0]
    assert seconds == tried


def test_strengths_are_hyper_parameters_and_an_option_ends_the_search():
    learner = tiny.learner("softmax")
    table = contestants(learner, tuple(STRENGTHS), {}, most=2, rho=0.2)
    for name, (word, values) in STRENGTHS.items():
        assert word in hyperparameters(METHODS[name].factory)
        assert len(table[name].forgets) == 2
        assert set(table[name].strengths) < set(values)
    fixed = contestants(learner, ("ssd",), {"ssd": {"alpha": 3.0}}, most=0, rho=0.2)
    assert fixed["ssd"].strengths == (None,)


@pytest.mark.slow
def test_study_end_to_end(tmp_path):
    """Where all is known, retraining heals the backdoor that the original has."""
    words = "--scale smoke --data.limit 300 --recipe.epochs 12 --model.width 16 "
    words += (
        "--kinds backdoor --methods retrain ssd --backdoor 30 --shares 1 --strengths 2"
    )
    assert corrective.command([*words.split(), "--results", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "corrective").iterdir()
    assert (folder / "figures" / "corrective.png").stat().st_size > 1000
    assert "retrain" in (folder / "tables.md").read_text()
    records = read_records(folder / "records.jsonl")
    found = {(r.method, r.request, r.metric, r.split): r.value for r in records}
    original = ("original", "backdoor:0", "accuracy")
    assert found[(*original, "corrected")] < 40
    assert found[(*original, "retained")] > 60
    assert found["retrain", "backdoor:1", "accuracy", "corrected"] > 60
    assert found["retrain", "backdoor:1", "agreement", "forget"] <= 20
    assert found["ssd", "backdoor:1", "strength", ""] in STRENGTHS["ssd"][1]


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
        ("--methods nothing", "choose from"),
        ("--shares 0.5 1.5", "0 < share <= 1"),
        ("--backdoor 9999", "expected 1 to"),
        ("--confusion 7", "even size"),
        ("--patch 9", "does not fit"),
        ("--target 10", "0 to 9"),
        ("--keep 2", "keep"),
        ("--model.name tree", "no model"),
        ("--data.name diabetes", "classes"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    with pytest.raises(ValueError, match=says):
        corrective.command([*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
