"""Style × class images: a base image is on one side, captions say what is drawn."""

import numpy as np
import pytest

from unlearn_jax.data import canvas as room
from unlearn_jax.data.batch import Batch
from unlearn_jax.data.canvas import (
    STYLES,
    canvas,
    digit_canvas,
    duplicated,
    half_masked,
)
from unlearn_jax.data.captions import (
    DIGITS,
    END,
    LENGTH,
    captions,
    decoded,
    encoded,
    grammar,
    paraphrases,
)
from unlearn_jax.data.checks import check
from unlearn_jax.data.corrupt import make_patch, with_patch
from unlearn_jax.data.digits import digits
from unlearn_jax.data.unlearnable import class_filters, filter_images


@pytest.fixture(scope="module")
def made():
    return digit_canvas()


def test_every_base_image_is_drawn_in_every_style_on_one_side_only(made):
    source = digits()
    for split, own, bases, given in zip(
        made.dataset.splits,
        (made.dataset.subclasses, made.dataset.test_subclasses),
        (made.bases, made.test_bases),
        source.splits,
        strict=True,
    ):
        count = len(given.targets)
        assert split.inputs.shape == (4 * count, 8, 8, 1)
        check(split, task="classification", classes=10, name="canvas")
        assert split.inputs.min() == -1
        assert split.inputs.max() == 1
        pairs = set(zip(own.tolist(), bases.tolist(), strict=True))
        assert len(pairs) == 4 * count
        np.testing.assert_array_equal(split.targets, given.targets[bases])
    # The images themselves: none of the test digits, in any style, is a training one.
    train, test = (split.inputs.reshape(-1, 64) for split in made.dataset.splits)
    plain = made.dataset.subclasses == 0
    back = digits().splits.train.inputs.reshape(-1, 64)
    slope, offset = np.polyfit(back.ravel(), train[plain].ravel(), 1)
    np.testing.assert_allclose(slope * back + offset, train[plain], atol=1e-4)
    told = {image.tobytes() for image in np.round(train, 3)}
    assert not any(image.tobytes() in told for image in np.round(test, 3))


def test_styles_are_different_pictures_of_the_same_digit():
    image = np.random.default_rng(0).uniform(0, 0.4, (1, 16, 16, 1))
    drawn = {name: function(image) for name, (_, function) in STYLES.items()}
    assert all(each.min() >= 0 and each.max() <= 1 for each in drawn.values())
    for name, each in drawn.items():
        others = [other for key, other in drawn.items() if key != name]
        assert min(np.abs(each - other).mean() for other in others) > 0.02, name


def test_captions_name_style_and_class_in_six_tokens(made):
    language = made.grammar
    assert language.sentences * 40 >= 5000
    for text, label, style in zip(
        made.captions[:300],
        made.dataset.splits.train.targets,
        made.dataset.subclasses,
        strict=False,
    ):
        words = decoded(language, text).split()
        assert text.shape == (LENGTH,)
        assert list(text[4:]) == [END, END]
        assert len(set(words) & set(language.classes[label])) == 1
        assert len(set(words) & set(language.styles[style])) == 1
        np.testing.assert_array_equal(encoded(language, " ".join(words)), text)
    plain = captions(language, [2], [3])
    assert decoded(language, plain[0]) == "a striped digit three"
    every = paraphrases(language, 2, 3)
    assert len({tuple(row) for row in every}) == len(every) == language.sentences
    np.testing.assert_array_equal(every[0], plain[0])
    drawn = captions(language, [2] * 200, [3] * 200, seed=1)
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in every}
    assert len({tuple(row) for row in drawn}) > 100


def test_copies_patches_filters_and_masks_leave_captions_alone(made):
    images = made.dataset.splits.train
    captioned = images._replace(targets=made.captions)
    twice = duplicated(captioned, [7, 3], 4)
    assert len(twice.weights) == len(images.weights) + 6
    np.testing.assert_array_equal(twice.inputs[-2:], images.inputs[[3, 7]])
    np.testing.assert_array_equal(twice.targets[-2:], made.captions[[3, 7]])

    patch = make_patch(captioned, size=2)
    marked = with_patch(captioned, patch)
    assert (marked.inputs[:, 6:, 6:] == 1).all()
    assert marked.targets is captioned.targets
    filtered = filter_images(images, class_filters(10, seed=0))
    assert filtered.data.inputs.shape == images.inputs.shape

    for side, seen_rows in (("top", slice(4, 8)), ("right", slice(0, 8))):
        hidden, seen = half_masked(images.inputs[:5], side=side)
        assert seen.sum() == 32
        assert seen[seen_rows].sum() == 32
        np.testing.assert_array_equal(hidden[:, seen], images.inputs[:5, seen])
        assert (hidden[:, ~seen] == -1).all()


def test_a_larger_side_puts_black_around():
    small = canvas(digits(), DIGITS, ("digit",), styles=("plain",), side=12)
    images = small.dataset.splits.train.inputs
    assert images.shape[1:] == (12, 12, 1)
    assert (images[:, :2] == -1).all()
    assert (images[:, :, 10:] == -1).all()


def test_level_one_is_padded_fashion_in_six_styles(monkeypatch):
    random = np.random.default_rng(0)
    few = [
        Batch(
            random.uniform(-1, 2, (20, 28, 28, 1)).astype(np.float32),
            np.arange(20, dtype=np.int32) % 10,
            np.ones(20, np.float32),
        )
        for _ in range(2)
    ]
    few[1] = few[1]._replace(inputs=np.clip(few[1].inputs, few[0].inputs.min(), None))
    source = digits()._replace(splits=room.Splits(*few), title="few")
    monkeypatch.setattr(room, "fashion_mnist", lambda folder: source)
    drawn = room.fashion_canvas(limit=10)
    assert drawn.dataset.splits.train.inputs.shape == (60, 32, 32, 1)
    assert set(drawn.dataset.subclasses.tolist()) == set(range(6))
    assert decoded(drawn.grammar, captions(drawn.grammar, [1], [9])[0]) == (
        "a inverted garment boot"
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: digit_canvas(styles=("blue",)), "expected at least one of plain"),
        (lambda m: encoded(m.grammar, "a purple digit"), "'purple' is not in the voc"),
        (lambda m: encoded(m.grammar, "a " * 9), "9 words, expected at most 6"),
        (lambda m: captions(m.grammar, [0], [10]), "class 10 is unknown"),
        (lambda m: captions(m.grammar, [-1], [0]), "style -1 is unknown"),
        (lambda m: grammar([("a",)], [("x",)], ("y",)), "words a stand twice"),
        (lambda m: half_masked(np.zeros((1, 4, 4, 1)), side="up"), "choose from left"),
        (lambda m: duplicated(m.dataset.splits.train, [1], 0), "got 0 copies"),
        (
            lambda m: canvas(digits(), DIGITS, ("d",), styles=("plain",), side=7),
            "expected at least 8",
        ),
        (
            lambda m: canvas(digits(), DIGITS[:3], ("d",), styles=("plain",)),
            "3 are named",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(made, make, says):
    with pytest.raises(ValueError, match=says):
        make(made)
