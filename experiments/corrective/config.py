"""What is manipulated, what is known of it, and who corrects."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from experiments.compare.presets import presets as compared
from experiments.corrective.contestants import STRENGTHS
from experiments.corrective.kinds import KINDS
from experiments.frame.options import Options, words_of
from experiments.frame.problem import PROBLEM_RULES, Data, Network, TrainingConfig
from experiments.frame.rules import Rule, above, at_least, between, one_of, some
from unlearn_jax.methods import METHODS
from unlearn_jax.train.recipe import Recipe

FACTORIES = {name: entry.factory for name, entry in METHODS.items()}
_TENTHS = tuple(round(0.1 * i, 1) for i in range(1, 11))


@dataclass(frozen=True)
class Config(TrainingConfig):
    """What is manipulated, what is known of it, and who corrects.

    Attributes:
        kinds: "backdoor", "confusion".
        backdoor: Training examples with a patch and the wrong label.
        patch: Pixels along the patch's side, in the lower right corner.
        target: The label that the patch stands for.
        confusion: Training examples with swapped labels, half of each class.
        classes: The two classes that are swapped.
        shares: Fractions of the bad examples that are known.
        methods: Names that ``python -m experiments.list`` shows.
        options: Hyper-parameters as "method.name=value"; one that is searched for ends
            the search.
        strengths: Strengths tried for each method (0: all).
        rho: What is left of the known bad examples' labels where the search for a
            strength ends, as a part of what the original has (no unit).
        keep: What must be left of the other training examples' labels (no unit).
        seeds: Originals, each with bad examples of its own.
        first: Number of the first of them.
        clean: Test examples that a defender trusts, by which backdoors are exposed
            (0: none).
    """

    model: Network = field(default_factory=lambda: Network(name="mlp", width=64))
    recipe: Recipe = field(
        default_factory=lambda: Recipe(epochs=30, batch_size=64, learning_rate=0.1)
    )
    kinds: tuple[str, ...] = KINDS
    backdoor: int = 60
    patch: int = 2
    target: int = 0
    confusion: int = 120
    classes: tuple[int, int] = (3, 8)
    shares: tuple[float, ...] = _TENTHS
    methods: tuple[str, ...] = (
        "retrain",
        "finetune",
        "gradient_ascent",
        "scrub",
        "ssd",
        "influence_removal",
        "potion",
    )
    options: Annotated[Options, words_of(FACTORIES)] = field(default_factory=Options)
    strengths: int = 0
    rho: float = 0.2
    keep: float = 0.9
    seeds: int = 3
    first: int = 0
    clean: int = 0


RULES: tuple[Rule, ...] = (
    *PROBLEM_RULES,
    *one_of(KINDS, "kinds"),
    *one_of(METHODS, "methods"),
    *some("kinds", "methods", "shares"),
    *above(0, "shares"),
    *between(0, 1, "shares", "rho", "keep"),
    *at_least(1, "seeds"),
    *at_least(0, "first", "strengths", "clean"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data), options=_options(data))
    large = data in ("fashion_mnist", "cifar10")
    if large:
        images = compared(data)["small"]
        small = replace(
            small,
            data=Data(name=data, limit=10_000),
            model=images.model,
            recipe=replace(images.recipe, epochs=max(images.recipe.epochs, 10)),
            backdoor=200,
            patch=3,
            confusion=800,
            shares=(0.1, 0.3, 0.5, 0.8, 1.0),
            seeds=2,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=500 if large or data == "digits" else 0),
        model=Network(name="mlp", width=64),
        recipe=replace(small.recipe, epochs=15),
        backdoor=40,
        confusion=40,
        shares=(0.2, 1.0),
        strengths=1,
        seeds=1,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        shares=_TENTHS,
        seeds=10,
        **({"backdoor": 500, "confusion": 5000} if large else {}),
    )
    return {"small": small, "smoke": smoke, "paper": paper}


def _options(data: str) -> Options:
    """Those of ``experiments.compare`` but for what this study settles itself.

    Strengths are searched, and ``rho`` is the rule by which the search ends.
    """
    given = compared(data)["small"].options
    searched = {name: word for name, (word, _) in STRENGTHS.items()}
    searched["potion"] = "rho"
    return Options(
        {
            name: {word: own[word] for word in own if word != searched.get(name)}
            for name, own in given.items()
        }
    )
