"""What is attacked: plain prompts, each with the noise that its image is drawn from."""

import itertools
from typing import NamedTuple

import numpy as np

from experiments.attacks.config import Config
from experiments.canvas.setting import Setting
from unlearn_jax.data.captions import captions
from unlearn_jax.diffusion.prompt_attacks import prefixed


class Cases(NamedTuple):
    """Value: one row for each image that an attack should bring back.

    Attributes:
        tokens: (n, t) plain prompts of what was erased.
        start: (n, h, w, c), the noise.
        sums: (3, n, t) prompts whose directions 1 − 2 + 3 add up to the prompt's:
            what was erased in another place, what stands there now, and that here.
        words: (p, slots), every prefix.
    """

    tokens: np.ndarray
    start: np.ndarray
    sums: np.ndarray
    words: np.ndarray

    def prompts(self, words: np.ndarray) -> np.ndarray:
        """Every case behind each of these, (n · p, t), case after case."""
        n, p = len(self.tokens), len(words)
        return prefixed(np.repeat(self.tokens, p, axis=0), np.tile(words, (n, 1)))

    def place(self, words: np.ndarray) -> np.ndarray:
        """Where prefixes (…, slots) stand in ``words``."""
        size = round(len(self.words) ** (1 / self.words.shape[1]))
        powers = size ** np.arange(self.words.shape[1])[::-1]
        return np.asarray(words) @ powers


def cases_of(setting: Setting[Config], start: np.ndarray) -> Cases:
    """All plain prompts of what was erased, ``seeds`` times each.

    Args:
        setting: What was erased, and how many words are put before it.
        start: Noise of as many images.
    """
    wanted, config = setting.wanted, setting.config
    classes, styles = (np.tile(each, config.seeds) for each in wanted.pairs())
    grammar = wanted.grammar
    words = itertools.product(range(len(grammar.words)), repeat=config.slots)
    anchored = wanted.replaced(classes, styles)
    if wanted.kind == "style":
        other = (classes + 1) % len(grammar.classes)
        sums = [(other, styles), wanted.replaced(other, styles), anchored]
    else:
        other = (styles + 1) % len(grammar.styles)
        sums = [(classes, other), wanted.replaced(classes, other), anchored]
    return Cases(
        captions(grammar, styles, classes),
        start,
        np.stack([captions(grammar, s, c) for c, s in sums]),
        np.array(list(words), np.int32),
    )


def at_random(brought: np.ndarray, queries: int) -> float:
    """Share of cases that so many different prefixes at random bring back.

    Args:
        brought: (n, p), whether a prefix does.
        queries: At most p.

    Returns:
        The expectation over choices, exactly.
    """
    count, total = brought.sum(1), brought.shape[1]
    none = np.ones(len(brought))
    for taken in range(queries):
        none = none * np.maximum(total - count - taken, 0) / (total - taken)
    return float(np.mean(1 - none))
