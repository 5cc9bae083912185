"""What an experiment is asked: configuration types, and words on the command line."""

import ast
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unlearn_jax.data.hard_sets import HARD_KINDS
from unlearn_jax.data.indices import UNREADABLE
from unlearn_jax.methods import METHODS
from unlearn_jax.train.ensemble import Members
from unlearn_jax.train.recipe import Recipe

_KINDS = {int: "whole number", bool: "truth value; write True or False"}


@dataclass(frozen=True)
class Data:
    """Which data.

    Attributes:
        name: A name that ``python -m experiments.list`` shows.
        dir: Folder of prepared TensorFlow Datasets; None takes UNLEARN_DATA.
        limit: Use only the first so many training and test examples (0: all).
    """

    name: str = "digits"
    dir: Path | None = None
    limit: int = 0


@dataclass(frozen=True)
class Network:
    """Which model.

    Attributes:
        name: A name that ``python -m experiments.list`` shows.
        width: Units of the mlp's two hidden layers, channels of the cnn's first
            convolution or of the resnet18's first stage (0: the model's default).
        bfloat16: Compute in bfloat16; parameters, optimiser and losses stay float32.
    """

    name: str = "mlp"
    width: int = 0
    bfloat16: bool = False


@dataclass(frozen=True)
class Seeds:
    """How often everything is repeated, at three levels.

    Attributes:
        train: Originals, each with an oracle of its own randomness.
        unlearn: Runs of a method on each original.
        evaluate: Evaluations of each unlearned model.
        first: Number of the first training seed; tune with seeds that no table uses.
    """

    train: int = 5
    unlearn: int = 1
    evaluate: int = 1
    first: int = 0


@dataclass(frozen=True)
class Config:
    """One comparison.

    Attributes:
        scale: Which preset the values come from.
        data: Which data.
        model: Which model.
        recipe: How originals and oracles are trained.
        l2: Coefficient of half the squared norm of the parameters in the objective.
        requests: What to forget, one comparison each: "random:0.1" or "random:100",
            "class:3", "sub_class:3", "file:indices.npy", "clustered:100",
            "clustered:3:100", "highest:100:scores.npy".
        methods: Names that ``python -m experiments.list`` shows.
        options: Hyper-parameters as "method.name=value".
        seeds: Repetitions.
        oracles: Retrained models per request, at least as many as training seeds; the
            floor is measured among them.
        members: Train ensembles as one program ("vmap"), one after another ("loop"), or
            the faster on this device ("auto").
        relearn_steps: Most steps that relearning may take.
        results: Folder for runs.
    """

    scale: Literal["smoke", "small", "paper", "custom"] = "small"
    data: Data = field(default_factory=Data)
    model: Network = field(default_factory=Network)
    recipe: Recipe = field(default_factory=Recipe)
    l2: float = 0.0
    requests: tuple[str, ...] = ("random:0.1",)
    methods: tuple[str, ...] = tuple(METHODS)
    options: tuple[str, ...] = ()
    seeds: Seeds = field(default_factory=Seeds)
    oracles: int = 10
    members: Members = "auto"
    relearn_steps: int = 200
    results: Path = Path("results")


def parse_request(text: str) -> dict[str, Any]:
    """Turn "kind:value" into the arguments of ``draw`` or of ``draw_hard``.

    The first is in ``unlearn_jax.data.forget``, the second in
    ``unlearn_jax.data.hard_sets``.

    Raises:
        ValueError: no such kind, or a value of the wrong sort.
    """
    kind, colon, value = text.partition(":")
    if kind == "file" and value:
        return {"kind": kind, "file": Path(value)}
    try:
        if not colon or not value:
            raise ValueError
        if kind == "random":
            return {"kind": kind, "size": _size(value)}
        if kind in ("class", "sub_class"):
            return {"kind": kind, "label": int(value)}
        if kind in HARD_KINDS:
            return _hard_request(kind, value)
        raise ValueError
    except UNREADABLE:
        raise ValueError(
            f"cannot read the request {text!r}; write random:0.1, random:100, class:3, "
            f"sub_class:3 or file:indices.npy; for hard sets clustered:100, "
            f"clustered:3:100 (within class 3), highest:100:scores.npy or "
            f"lowest:100:scores.npy"
        ) from None


def _hard_request(kind: str, value: str) -> dict[str, Any]:
    """What follows the kind, SIZE, LABEL:SIZE or SIZE:FILE, for ``draw_hard``."""
    text, colon, rest = value.partition(":")
    if kind == "clustered" and colon:
        text, rest = rest, text
    words: dict[str, Any] = {"kind": kind, "size": _size(text)}
    if kind == "clustered":
        return {**words, "label": int(rest)} if colon else words
    if not rest:
        raise ValueError
    return {**words, "file": Path(rest)}


def _size(text: str) -> int | float:
    size = ast.literal_eval(text)
    if type(size) not in (int, float):
        raise ValueError(f"{text!r} is no number")
    return size


def parse_options(
    options: Sequence[str], methods: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Turn "method.name=value" words into keyword arguments per method.

    Raises:
        ValueError: no such method or hyper-parameter, not a value of its kind, or one
            that is given twice.
    """
    parsed: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for text in options:
        target, equals, value = text.partition("=")
        method, dot, name = target.partition(".")
        if not equals or not dot or method not in METHODS:
            raise ValueError(
                f"cannot read the option {text!r}; write method.name=value, such as "
                f"ssd.alpha=5, with one of the methods {', '.join(METHODS)}"
            )
        known = hyperparameters(METHODS[method].factory)
        if name not in known:
            raise ValueError(
                f"{method} has no hyper-parameter {name!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
        own = parsed.setdefault(method, {})
        if name in own:
            raise ValueError(
                f"the options set {method}.{name} twice; give it one value"
            )
        own[name] = read_option(text, value, known[name].default)
    return parsed


def read_option(option: str, value: str, default: Any) -> Any:
    """A value of the default's type; words need no quotes, nothing is cut off.

    Raises:
        ValueError: another type, such as 2.7 for a whole number.
    """
    if isinstance(default, str):
        return value.strip("'\"")
    kind = _KINDS.get(type(default), "number")
    try:
        read: Any = ast.literal_eval(value)
        if default is None and value == "None":
            return None
        fits = type(read) in ((bool,) if isinstance(default, bool) else (int, float))
        if isinstance(default, int) and fits:
            fits = read == int(read)
        if not fits:
            raise ValueError(value)
        return read if default is None else type(default)(read)
    except UNREADABLE:
        raise ValueError(f"{option!r}: {value!r} is not a {kind}") from None


def check_once(what: str, words: Sequence[str]) -> None:
    """Refuse a list that names something twice: its rows could not be told apart.

    Raises:
        ValueError: the word, and how often it is there.
    """
    counts = Counter(words)
    repeated = [word for word in counts if counts[word] > 1]
    if repeated:
        raise ValueError(
            f"{what} names {repeated[0]!r} {counts[repeated[0]]} times; give it once"
        )


def hyperparameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a method's factory."""
    return {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
