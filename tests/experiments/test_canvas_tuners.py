"""Tuned rows of the study: what they may read, and that each is a program."""

import jax
import numpy as np
import pytest

from experiments.canvas.config import presets
from experiments.canvas.setting import build
from experiments.canvas.tuners import TUNERS, scene_of
from unlearn_jax.data.captions import captions, decoded
from unlearn_jax.methods.erasing.rollouts import Generator

CONFIG = presets("any")["smoke"]
EVERY_DAY = ("esd-x: five ekfac steps", "salun: random mask")


@pytest.fixture(scope="module")
def setting():
    return build(CONFIG)


def made(setting, wanted=None):
    generator = Generator(setting.denoiser, setting.schedule, steps=4)
    wanted = setting.wanted if wanted is None else wanted
    return scene_of(wanted, setting.canvas, generator)


def test_images_are_split_by_what_is_erased_and_captions_renamed(setting):
    scene, train = made(setting), setting.dataset.splits.train
    images, text = scene.images, setting.canvas.captions
    own = np.asarray(train.targets) == CONFIG.target
    assert len(images.forget.weights) == own.sum()
    assert len(images.retain.weights) == (~own).sum()
    np.testing.assert_array_equal(images.forget.targets, text[own])
    grammar = setting.canvas.grammar
    pairs = {"three": "eight", "3": "8"}
    for before, after in zip(text[own][:50], images.instead[:50], strict=True):
        words = decoded(grammar, before).split()
        assert decoded(grammar, after).split() == [pairs.get(w, w) for w in words]
    styles = np.arange(4)
    for name, label in (("forget", CONFIG.target), ("anchor", CONFIG.anchor)):
        plain = captions(grammar, styles, np.full(4, label))
        np.testing.assert_array_equal(getattr(scene.prompts, name), plain)


def test_a_style_is_renamed_too(setting):
    wanted = setting.wanted._replace(kind="style")
    scene = made(setting, wanted)
    words = decoded(setting.canvas.grammar, scene.images.instead[0]).split()
    assert not {"striped", "lined"} & set(words)
    assert {"plain", "normal"} & set(words)


@pytest.mark.parametrize(
    "name",
    [
        name if name in EVERY_DAY else pytest.param(name, marks=pytest.mark.slow)
        for name in TUNERS
    ],
)
def test_a_tuner_is_a_program_of_the_generator(setting, name):
    like = jax.eval_shape(setting.denoiser.model.init, jax.random.key(0))
    scene = made(setting)

    def tuned(key, variables, images):
        return TUNERS[name](key, scene._replace(images=images), variables)

    found = jax.eval_shape(tuned, jax.random.key(0), like, scene.images)
    assert found == like
