"""The study of distributions: what is refused, before anything is trained."""

import dataclasses

import pytest

from experiments._dmm_setting import Config, build
from experiments.frame.problem import Data, Network

TINY = Config(
    data=Data(limit=60),
    model=Network(name="linear"),
    requests=("random:5",),
    originals=4,
    models=2,
    members=8,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"originals": 3}, "at least 4 originals"),
        ({"models": 5}, "1 to 4 models"),
        ({"points": 0}, "points of at least 1"),
        ({"settings": -1}, "settings and seed of at least 0"),
        ({"seed": -1}, "settings and seed of at least 0"),
        ({"model": Network(name="rope")}, "no model 'rope'"),
        ({"attributions": ("trk",)}, "no attribution 'trk'"),
        ({"attributions": ("tracin",)}, "'tracin' reads"),
        ({"attributions": ("datamodel",), "members": 1}, "at least 2 members"),
        ({"attributions": ("datamodel",), "share": 1.0}, "60 of 60 examples"),
        ({"attributions": ("datamodel",), "share": 0.0}, "0 of 60 examples"),
        ({"requests": ()}, "at least one request"),
        ({"requests": ("random:5", "random:5")}, "random:5, random:5"),
        ({"requests": ("clas:3",)}, "cannot read"),
        ({"requests": ("class:11",)}, "label 11"),
        ({"requests": ("random:60",)}, "expected 1 to 59"),
        ({"requests": ("gradients:0",)}, "expected 1 to 59"),
        ({"requests": ("clustered:60",)}, "expected 1 to 59"),
        ({"requests": ("random:5", "clustered:3:40")}, "'clustered:3:40' asks for 40"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_trained(change, message):
    with pytest.raises(ValueError, match=message):
        build(dataclasses.replace(TINY, **change))


def test_shares_and_members_matter_only_to_attributions_that_read_them():
    asked = dataclasses.replace(TINY, attributions=("trak",), members=1, share=1.0)
    assert build(asked).config == asked
