"""Published tokenisers: from ``tokenizer.json``, or out of a GGUF file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.storage.tensors import package, read_facts

_SPECIAL = 3
"""What GGUF calls the type of a token that is no text."""
_SPLITS: dict[str, tuple[str, ...]] = {
    "smollm": ("digits", "bytes"),
    "gpt-2": ("bytes",),
}
"""Name that GGUF has for a way to cut text before merging -> its steps."""


class Tokenizer(NamedTuple):
    """Description: text to token numbers and back.

    Attributes:
        encode: Text -> numbers; nothing is put before or after. Special tokens that
            stand in the text, such as ``<|im_end|>``, become their own number.
        decode: Numbers -> text; special tokens are left out, and so is what is
            negative.
        size: Of the vocabulary: every number is below it.
        begin: Token before a text; None where the file names none.
        end: Token after a text; None where the file names none.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int] | np.ndarray], str]
    size: int
    begin: int | None = None
    end: int | None = None


def read_tokenizer(path: str | Path) -> Tokenizer:
    """A tokeniser of the package ``tokenizers``, or one of a GGUF file.

    Args:
        path: ``tokenizer.json``, the folder it is in or a ``.safetensors`` beside it,
            or a ``.gguf`` with byte-level pairs (BPE).

    Raises:
        ValueError: not there, not readable, of another kind, or the package that reads
            it is not installed.
    """
    path = Path(path)
    library = package("tokenizers", "language")
    if path.suffix == ".gguf":
        return _of_gguf(library, path)
    if path.is_dir() or path.suffix == ".safetensors":
        path = (path if path.is_dir() else path.parent) / "tokenizer.json"
    try:
        made = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception
        raise ValueError(
            f"{path} cannot be read as a tokeniser ({str(error)[:200]}); give the "
            f"tokenizer.json that was published with the model, the folder with both, "
            f"or a .gguf file"
        ) from None
    return _wrapped(made)


def check_vocabulary(tokenizer: Tokenizer, outputs: int) -> None:
    """Refuse a tokeniser whose numbers a model does not know.

    Args:
        tokenizer: Any.
        outputs: Tokens of the model's vocabulary, which may have more for its size's
            sake.

    Raises:
        ValueError: the tokeniser has more.
    """
    if tokenizer.size > outputs:
        raise ValueError(
            f"the tokeniser has {tokenizer.size} tokens and the model {outputs}; take "
            f"the one that the model was trained with, or a model with so many outputs"
        )


def _of_gguf(library: Any, path: Path) -> Tokenizer:
    facts = read_facts(path)
    prefix = "tokenizer.ggml."
    own = {k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)}
    kind, before = own.get("model"), own.get("pre", "gpt-2")
    if kind != "gpt2" or before not in _SPLITS:
        raise ValueError(
            f"{path} has a tokeniser {kind!r} cut by {before!r}, expected 'gpt2' by "
            f"one of {', '.join(_SPLITS)}; give the model's tokenizer.json"
        )
    words: list[str] = own["tokens"]
    numbers = {word: number for number, word in enumerate(words)}
    merges = [tuple(pair.split(" ")) for pair in own["merges"]]
    made = library.Tokenizer(library.models.BPE(vocab=numbers, merges=merges))
    parts, steps = library.pre_tokenizers, []
    if "digits" in _SPLITS[before]:
        steps.append(parts.Digits(individual_digits=True))
    steps.append(parts.ByteLevel(add_prefix_space=False))
    made.pre_tokenizer = parts.Sequence(steps)
    made.decoder = library.decoders.ByteLevel()
    kinds = own.get("token_type", ())
    special = [
        word for word, kind in zip(words, kinds, strict=False) if kind == _SPECIAL
    ]
    made.add_special_tokens(
        [library.AddedToken(word, normalized=False, special=True) for word in special]
    )
    return _wrapped(made, own.get("bos_token_id"), own.get("eos_token_id"))


def _wrapped(made: Any, begin: int | None = None, end: int | None = None) -> Tokenizer:
    def encode(text: str) -> list[int]:
        return list(made.encode(text, add_special_tokens=False).ids)

    def decode(tokens: Sequence[int] | np.ndarray) -> str:
        whole = [int(token) for token in tokens if token >= 0]
        return made.decode(whole, skip_special_tokens=True)

    return Tokenizer(encode, decode, made.get_vocab_size(), begin, end)
