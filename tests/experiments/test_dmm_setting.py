"""The study of distributions: what is refused, before anything is trained."""

import dataclasses

import jax.numpy as jnp
import pytest

from experiments import dmm
from experiments.dmm import models
from experiments.dmm.config import RULES, Config
from experiments.dmm.setting import build
from experiments.frame.options import Options
from experiments.frame.problem import Data, Network
from experiments.frame.rules import check_rules
from experiments.frame.study import configured
from unlearn_jax.train.recipe import Recipe

ADAM = Recipe(optimizer="adam")
TINY = Config(
    data=Data(limit=60),
    model=Network(name="linear"),
    requests=("random:5",),
    originals=4,
    models=2,
    members=8,
)


def checked(config):
    check_rules(config, RULES)
    return build(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"originals": 3}, "originals is 3; expected at least 4"),
        ({"models": 5}, "at most the 4 originals"),
        ({"models": 0}, "models is 0; expected at least 1"),
        ({"points": 0}, "points is 0; expected at least 1"),
        ({"settings": -1}, "settings is -1; expected at least 0"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"model": Network(name="rope")}, "no model 'rope'"),
        ({"methods": ("ssdd",)}, "methods is 'ssdd'"),
        ({"methods": ("ssd", "ssd")}, "none of them twice"),
        ({"attributions": ("trk",)}, "attributions is 'trk'"),
        ({"attributions": ("trak", "trak")}, "none of them twice"),
        ({"attributions": ("tracin",)}, "'tracin' reads"),
        (
            {"attributions": ("datamodel",), "members": 0},
            "members is 0; expected at least 4",
        ),
        ({"attributions": ("datamodel",), "share": 1.0}, "share is 1.0; expected"),
        ({"attributions": ("datamodel",), "share": 0.0}, "share is 0.0; expected"),
        ({"requests": ()}, "at least one"),
        ({"requests": ("random:5", "random:5")}, "random:5, random:5"),
        ({"requests": ("clas:3",)}, "cannot read"),
        ({"requests": ("class:11",)}, "label 11"),
        ({"requests": ("random:60",)}, "1 to 59"),
        ({"requests": ("gradients:0",)}, "1 to 59"),
        ({"requests": ("clustered:60",)}, "1 to 59"),
        ({"requests": ("random:5", "clustered:3:40")}, "size 40"),
        ({"matching": ()}, "at least one"),
        ({"recipe": ADAM, "methods": ("ssd",)}, "leave it out of the attributions"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_trained(change, message):
    with pytest.raises(ValueError, match=message):
        checked(dataclasses.replace(TINY, **change))


def test_shares_and_members_matter_only_to_attributions_that_read_them():
    asked = dataclasses.replace(TINY, attributions=("trak",), members=1, share=1.0)
    assert build(asked).masks is None


def test_options_reach_the_contenders_typed_and_leave_the_others_alone():
    words = "--options ssd.alpha=7,9 scrub.forget_batch=16,64 --matching.3.epochs 2"
    config = configured(dmm.STUDY, words.split())
    assert config.options.of("ssd") == {"alpha": (7.0, 9.0)}
    assert config.options.of("finetune") == Config().options.of("finetune")
    assert "unrolled_removal" in config.methods
    made = {(c.family, c.setting): c for c in build(config).contenders}
    traced = [family for (family, _), one in made.items() if one.traced]
    assert set(traced) == {
        *("unrolled_removal", "direct: unrolled_response", "dmm: unrolled_response")
    }
    assert [s for f, s in made if f == "ssd"] == ["alpha 7", "alpha 9"]
    assert made["ssd", "alpha 9"].known_by == {"options": {"alpha": 9.0}}
    name = "epochs 3, learning_rate 0.05, forget_batch 64"
    options = made["scrub", name].known_by["options"]
    assert options["ascent_epochs"] == 2
    assert isinstance(options["forget_batch"], int)
    assert ("dmm: trak", "epochs 2, learning_rate 0.0005") in made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ssd.alpha=5,5", "gives a value twice"),
        ("ssd.alpha=5 ssd.alpha=6", "twice"),
        ("finetune.epochs=1,2.5", "whole number"),
        ("trak.damping=1,2", "an attribution takes one"),
        ("sdd.alpha=1", "cannot read the option"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, message):
    asked = ["--data.limit", "60", "--requests", "random:5", "--options"]
    with pytest.raises(ValueError, match=message):
        build(configured(dmm.STUDY, [*asked, *words.split()]))


def test_values_of_options_are_typed_back_as_they_were_given():
    words = Options({"ssd": {"alpha": (1.0, 3.0)}}).words()
    assert words == ["ssd.alpha=1.0,3.0"]


def test_oracles_do_not_depend_on_what_else_is_asked_for(monkeypatch):
    def trained(*requests):
        seen = {}

        def stand_in(bench, setting, name, weights, stream):
            seen[name] = stream, weights.tobytes()
            return [{"w": jnp.zeros(1)}] * len(weights)

        monkeypatch.setattr(models, "_models", stand_in)
        monkeypatch.setattr(models, "_subsets", lambda *_: None)
        setting = build(dataclasses.replace(TINY, requests=requests))
        cases = models.train_all(None, setting).cases
        return seen, {case.name: case.known_by for case in cases}

    first, second = ("random:5", "class:3"), ("class:3", "random:5")
    assert trained(*first) == trained(*second)
