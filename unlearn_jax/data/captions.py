"""Captions of six tokens: a grammar whose every sentence names one style and one class.

A sentence has four words, in one of two orders, and is followed by two end tokens: "a
striped digit three" and "a digit three striped". Every part has synonyms, so that there
are thousands of sentences, and a causal encoder reads the class word last or the style
word last.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

LENGTH = 6
"""Tokens of a caption, the end and its padding among them."""
END = 0
"""The token that ends a sentence; what is behind it is padded with more of them."""
ARTICLES = ("a", "the", "this", "that", "some", "each", "my", "your")
ORDERS = 2
DIGITS = (
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
)
"""Names of the classes of digits."""
GARMENTS = (
    ("shirt", "tee"),
    ("trousers", "pants"),
    ("pullover", "sweater"),
    ("dress", "gown"),
    ("coat", "jacket"),
    ("sandal", "flipflop"),
    ("blouse", "top"),
    ("sneaker", "trainer"),
    ("bag", "purse"),
    ("boot", "bootie"),
)
"""Names of the classes of Fashion-MNIST."""


class Grammar(NamedTuple):
    """Description: the words of captions.

    Attributes:
        styles: Names of each style; the first is the plain one, the others synonyms.
        classes: Names of each class, likewise.
        nouns: What all images are: "digit", "numeral"; the first is the plain one.
        articles: What a sentence begins with.
    """

    styles: tuple[tuple[str, ...], ...]
    classes: tuple[tuple[str, ...], ...]
    nouns: tuple[str, ...]
    articles: tuple[str, ...] = ARTICLES

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary, each word at its token; the first is the end."""
        named = [word for names in (*self.styles, *self.classes) for word in names]
        return ("<end>", *self.articles, *self.nouns, *named)

    @property
    def sentences(self) -> int:
        """How many different sentences name one given style and class, at least."""
        least = min(map(len, self.styles)) * min(map(len, self.classes))
        return len(self.articles) * len(self.nouns) * ORDERS * least


def grammar(
    styles: Sequence[tuple[str, ...]],
    classes: Sequence[tuple[str, ...]],
    nouns: Sequence[str],
) -> Grammar:
    """A grammar whose words all differ.

    Raises:
        ValueError: a style, a class or the nouns without a word, or a word that stands
            twice, whose token would mean two things.
    """
    made = Grammar(tuple(styles), tuple(classes), tuple(nouns))
    if not nouns or not all((*styles, *classes)):
        raise ValueError(
            "a style, a class or the nouns have no word, expected at least one each: "
            "name them"
        )
    twice = sorted({word for word in made.words if made.words.count(word) > 1})
    if twice:
        raise ValueError(
            f"the words {', '.join(twice)} stand twice, expected each once: a token "
            "means one thing"
        )
    return made


def encoded(
    grammar: Grammar, text: str, *, length: int = LENGTH
) -> Int[np.ndarray, " t"]:
    """Tokens of a text of blank-separated words, then ends up to ``length``.

    The empty text is the null prompt.

    Raises:
        ValueError: a word outside of the vocabulary, or more words than tokens.
    """
    words = text.split()
    known = {word: token for token, word in enumerate(grammar.words)}
    wrong = [word for word in words if word not in known]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r} is not in the vocabulary of {len(known)} words; take one "
            f"of {', '.join(grammar.words[1:])}"
        )
    if len(words) > length:
        raise ValueError(
            f"the text has {len(words)} words, expected at most {length}: shorten it"
        )
    tokens = np.full(length, END, np.int32)
    tokens[: len(words)] = [known[word] for word in words]
    return tokens


def decoded(grammar: Grammar, tokens: Any) -> str:
    """The words of a caption, without its ends."""
    return " ".join(grammar.words[t] for t in np.asarray(tokens) if t != END)


def captions(
    grammar: Grammar, styles: Any, classes: Any, *, seed: int | None = None
) -> Int[np.ndarray, "n t"]:
    """A caption for each pair of a style and a class.

    Args:
        grammar: Its words.
        styles: (n,) numbers of styles.
        classes: (n,) numbers of classes.
        seed: Draws one of the sentences that name the pair, each synonym and order
            alike; None takes the plain one, "a STYLE NOUN CLASS".

    Returns:
        (n, :data:`LENGTH`) int32.

    Raises:
        ValueError: a style or a class that the grammar has no name for.
    """
    styles, classes = (np.asarray(each, np.int64) for each in (styles, classes))
    for kind, given, names in (
        ("style", styles, grammar.styles),
        ("class", classes, grammar.classes),
    ):
        wrong = given[(given < 0) | (given >= len(names))]
        if wrong.size:
            known = ", ".join(own[0] for own in names)
            raise ValueError(
                f"{kind} {int(wrong[0])} is unknown, expected 0 to {len(names) - 1}: "
                f"{known}"
            )
    count = len(styles)
    article = np.zeros(count, np.int64)
    noun, order = article, article
    style, label = article, article
    if seed is not None:
        random = np.random.default_rng(seed)
        article = random.integers(len(grammar.articles), size=count)
        noun = random.integers(len(grammar.nouns), size=count)
        order = random.integers(ORDERS, size=count)
        style, label = random.random((2, count))
    return arranged(
        1 + article,
        1 + len(grammar.articles) + noun,
        _token(grammar, grammar.styles, styles, style, 0),
        _token(grammar, grammar.classes, classes, label, _names(grammar.styles)),
        order,
    )


def arranged(
    article: Any, noun: Any, style: Any, label: Any, order: Any
) -> Int[np.ndarray, "n t"]:
    """Four tokens each as captions: order 0 has the class last, order 1 the style."""
    first = np.where(order == 0, style, noun)
    second = np.where(order == 0, noun, label)
    last = np.where(order == 0, label, style)
    ends = np.full(len(last), END)
    return np.stack([article, first, second, last, ends, ends], 1).astype(np.int32)


def paraphrases(grammar: Grammar, style: int, label: int) -> Int[np.ndarray, "s t"]:
    """Every sentence that names this style and class, the plain one first.

    Raises:
        ValueError: as :func:`captions`.
    """
    captions(grammar, [style], [label])
    counts = (
        ORDERS,
        len(grammar.articles),
        len(grammar.nouns),
        len(grammar.styles[style]),
        len(grammar.classes[label]),
    )
    order, article, noun, own, name = (
        each.ravel() for each in np.indices(counts).reshape(len(counts), -1)
    )
    start = 1 + len(grammar.articles) + len(grammar.nouns)
    before = _names(grammar.styles[:style])
    beside = _names(grammar.styles) + _names(grammar.classes[:label])
    return arranged(
        1 + article,
        1 + len(grammar.articles) + noun,
        start + before + own,
        start + beside + name,
        order,
    )


def _names(groups: Sequence[tuple[str, ...]]) -> int:
    return sum(map(len, groups))


def _token(
    grammar: Grammar,
    groups: tuple[tuple[str, ...], ...],
    numbers: np.ndarray,
    share: np.ndarray,
    skipped: int,
) -> np.ndarray:
    """Tokens of one of the names of each number, ``share`` of the way through them."""
    sizes = np.array([len(names) for names in groups])
    starts = np.cumsum(sizes) - sizes
    start = 1 + len(grammar.articles) + len(grammar.nouns) + skipped
    chosen = np.floor(share * sizes[numbers]).astype(np.int64)
    return start + starts[numbers] + chosen
