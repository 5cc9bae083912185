"""A published model whose vocabulary is cut to the tokens that some texts have."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from unlearn_jax.data.tokenizer import Tokenizer
from unlearn_jax.models.transformer import of_shape
from unlearn_jax.train.llama import Pretrained


def fewer_tokens(found: Pretrained, kept: Iterable[int], **kinds: Any) -> Pretrained:
    """The same blocks on a table, and under a head, of fewer tokens.

    Logits of tokens that are left are what they were; their probabilities are those
    given that it is one of them. A head over 50,000 tokens takes most of the time of a
    model of which few blocks are trained.

    Args:
        found: A model that was read.
        kept: Numbers of the tokens that stay; they are numbered anew from 0, in order.
        kinds: ``dtype`` and ``compute_dtype``, as the model was read.

    Raises:
        ValueError: no token, or one that the model has not.
    """
    numbers = _sorted(kept, found.shape.vocabulary)
    params: Any = dict(found.variables.params)
    params["tokens"] = {"embedding": params["tokens"]["embedding"][numbers]}
    if not found.shape.tied:
        params["head"] = {"kernel": params["head"]["kernel"][:, numbers]}
    shape = found.shape._replace(vocabulary=len(numbers))
    variables = found.variables._replace(params=params)
    return Pretrained(of_shape(shape, **kinds), variables, shape)


def fewer_words(words: Tokenizer, kept: Iterable[int]) -> Tokenizer:
    """The tokeniser of :func:`fewer_tokens`, of the same tokens.

    Its ``encode`` raises a ValueError for a text with a token that was cut; special
    tokens that were are None.
    """
    numbers = _sorted(kept, words.size)
    places = {int(number): place for place, number in enumerate(numbers)}

    def encode(text: str) -> list[int]:
        found = words.encode(text)
        cut = [token for token in found if token not in places]
        if cut:
            raise ValueError(
                f"{text[:60]!r} has token {cut[0]}, {words.decode(cut[:1])!r}, which "
                f"is not among the {len(numbers)} that were kept; keep it too"
            )
        return [places[token] for token in found]

    def decode(tokens: Sequence[int] | np.ndarray) -> str:
        return words.decode([int(numbers[token]) for token in tokens if token >= 0])

    def own(token: int | None) -> int | None:
        return None if token is None else places.get(token)

    return Tokenizer(encode, decode, len(numbers), own(words.begin), own(words.end))


def _sorted(kept: Iterable[int], size: int) -> np.ndarray:
    numbers = np.unique(np.fromiter(kept, np.int64))
    if not numbers.size or numbers[0] < 0 or numbers[-1] >= size:
        told = f"{numbers[0]} to {numbers[-1]}" if numbers.size else "none"
        raise ValueError(
            f"got tokens {told} to keep, expected at least one, from 0 to {size - 1}: "
            "take the numbers that the tokeniser gives"
        )
    return numbers
