"""What is asked to be erased: a class, a style, or one class in one style."""

from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.data.canvas import FOUR, STYLES
from unlearn_jax.data.captions import (
    DIGITS,
    Grammar,
    captions,
    encoded,
    grammar,
    paraphrases,
)
from unlearn_jax.evaluation.judge import REJECTED

KINDS = ("class", "style", "pair")
GRAMMAR = grammar([STYLES[name][0] for name in FOUR], DIGITS, ["digit"])
"""Names of what is drawn, where no data are at hand."""


class Wanted(NamedTuple):
    """Description: what is erased, and what edits put in its place.

    Attributes:
        kind: One of ``KINDS``.
        label: Class to erase; not read where a style is.
        anchor: Class in its place.
        style: Style to erase; not read where a class is.
        style_anchor: Style in its place; a pair keeps its style.
        grammar: Of the captions.
    """

    kind: str
    label: int
    anchor: int
    style: int
    style_anchor: int
    grammar: Grammar

    @property
    def name(self) -> str:
        """In words."""
        own, style = self.grammar.classes[self.label][0], self.grammar.styles
        if self.kind == "class":
            return own
        return style[self.style][0] if self.kind == "style" else self._pair(self.target)

    @property
    def known_by(self) -> Any:
        """What tells a generator that never saw it from others."""
        if self.kind == "class":
            return self.label
        return [self.kind, self.style, *([self.label] if self.kind == "pair" else [])]

    @property
    def target(self) -> int:
        """Its number among :meth:`numbers`."""
        return int(self.numbers(self.label, self.style))

    @property
    def size(self) -> int:
        """How many there are of its kind."""
        classes, styles = len(self.grammar.classes), len(self.grammar.styles)
        return {"class": classes, "style": styles, "pair": classes * styles}[self.kind]

    @property
    def titles(self) -> list[str]:
        """Of each number, in words."""
        grammar = self.grammar
        if self.kind == "pair":
            return [self._pair(number) for number in range(self.size)]
        groups = grammar.classes if self.kind == "class" else grammar.styles
        return [words[0] for words in groups]

    @property
    def words(self) -> tuple[int, ...]:
        """Where plain prompts have the word that names it, as a reader meets it."""
        return (1,) if self.kind == "style" else (3,)

    def numbers(self, classes: Any, styles: Any) -> np.ndarray:
        """Classes and styles as what a request of this kind tells apart.

        An image of which one of the two was rejected is rejected as a pair.
        """
        classes, styles = np.asarray(classes), np.asarray(styles)
        if self.kind != "pair":
            return classes if self.kind == "class" else styles
        pairs = classes * len(self.grammar.styles) + styles
        return np.where((classes < 0) | (styles < 0), REJECTED, pairs)

    def other(self, classes: Any, styles: Any) -> np.ndarray:
        """What is not asked to go: styles, or classes where a style is erased."""
        return np.asarray(classes if self.kind == "style" else styles)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Classes and styles of its plain prompts."""
        classes, styles = self._all()
        own = self.numbers(classes, styles) == self.target
        return classes[own], styles[own]

    def replaced(self, classes: Any, styles: Any) -> tuple[np.ndarray, np.ndarray]:
        """What edits put in the place of each."""
        classes, styles = np.asarray(classes), np.asarray(styles)
        if self.kind == "style":
            return classes, np.full_like(styles, self.style_anchor)
        return np.full_like(classes, self.anchor), styles

    def plain(self) -> np.ndarray:
        """Its plain prompts, (n, t)."""
        classes, styles = self.pairs()
        return captions(self.grammar, styles, classes)

    def anchors(self) -> np.ndarray:
        """Prompts of what takes their place."""
        classes, styles = self.replaced(*self.pairs())
        return captions(self.grammar, styles, classes)

    def others(self) -> np.ndarray:
        """Plain prompts of everything else, and the null prompt."""
        classes, styles = self._all()
        own = self.numbers(classes, styles) == self.target
        kept = captions(self.grammar, styles[~own], classes[~own])
        return np.concatenate([kept, encoded(self.grammar, "")[None]])

    def sentences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every sentence: of it, of what takes its place in the same order, of others.

        Of the others no null prompt.
        """
        pairs = list(zip(*self._all(), strict=True))
        own = list(zip(*self.pairs(), strict=True))
        anchors = list(zip(*self.replaced(*self.pairs()), strict=True))
        kept = [pair for pair in pairs if pair not in own]

        def said(some: list[Any]) -> np.ndarray:
            each = [paraphrases(self.grammar, int(s), int(c)) for c, s in some]
            return np.concatenate(each)

        return said(own), said(anchors), said(kept)

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(self.grammar.classes), len(self.grammar.styles))
        classes, styles = np.indices(shape).reshape(2, -1)
        return classes, styles

    def _pair(self, number: int) -> str:
        label, style = divmod(number, len(self.grammar.styles))
        grammar = self.grammar
        return f"{grammar.styles[style][0]} {grammar.classes[label][0]}"
