"""The authors, the model, and what every method may spend."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.frame.rules import at_least, one_of, some
from experiments.language.config import LANGUAGE_RULES, LanguageConfig
from experiments.language.contenders import CONTENDERS, SHOWN
from unlearn_jax.data.authors import FACTS
from unlearn_jax.train.recipe import Recipe

SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
"""What is forgotten of TOFU, and what is retained then."""


@dataclass(frozen=True, kw_only=True)
class Config(LanguageConfig):
    """The authors, and what all studies of sequences are asked.

    Attributes:
        forget: Authors to forget.
        retain: Authors to retain; every second one is trained in two wordings.
        real: Further authors that all models are trained on, in no request.
        towns: Towns that all models are trained on, in no request.
        holdout: Authors that no model is trained on.
        facts: Questions about each author.
        perturbed: Wrong answers of each question.
        judged: Questions of each part that are judged, at most.
        weights: A published model to start from: a .gguf file, or a folder with
            config.json, tokenizer.json and tensors; None begins a decoder of bytes.
        tofu: Folder of TOFU's files; None draws authors.
        split: Of TOFU, what is to be forgotten: a name in ``SPLITS``.
        asked: Of TOFU, questions to forget, the first ones; 0 for all.
        kept: Of TOFU, questions to retain, the judged ones first; 0 for all.
        adapters: Of a published model, rank of what is trained on its upper blocks;
            0 trains all of it.
        blocks: Blocks from the top that adapters are on.
        occurring: Of a published model with adapters, cut its vocabulary to the tokens
            of what is asked and answered here.
        batch: Forgotten questions in a step.
        relearn: Steps of relearning.
        probed: Forgotten questions that are asked for in RWKU's ways too; 0 for none.
    """

    forget: int = 4
    retain: int = 12
    real: int = 3
    towns: int = 6
    holdout: int = 4
    facts: tuple[str, ...] = ("birthplace", "genre", "home", "year", "award")
    perturbed: int = 3
    judged: int = 20
    weights: Path | None = None
    tofu: Path | None = None
    split: str = "forget01"
    asked: int = 0
    kept: int = 0
    adapters: int = 0
    blocks: int = 4
    occurring: bool = False
    depth: int = 2
    width: int = 208
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            epochs=24,
            batch_size=16,
            learning_rate=2e-3,
            optimizer="adam",
            weight_decay=0.0,
        )
    )
    methods: tuple[str, ...] = (*SHOWN, "refusal")
    passes: int = 20
    batch: int = 8
    relearn: int = 12
    probed: int = 5


RULES = (
    *LANGUAGE_RULES,
    *at_least(1, "forget", "retain", "real", "towns", "holdout", "perturbed", "judged"),
    *at_least(1, "batch", "relearn", "blocks"),
    *at_least(0, "asked", "kept", "adapters", "probed"),
    *one_of(SPLITS, "split"),
    *some("facts"),
    *one_of(FACTS, "facts"),
)


def files(config: Config) -> Iterable[Path]:
    """What the run depends on beside its settings."""
    weights = [] if config.weights is None else [config.weights]
    if weights and weights[0].is_dir():
        weights = sorted(weights[0].iterdir())
    folder = [] if config.tofu is None else sorted(config.tofu.glob("*.json"))
    return [path for path in (*weights, *folder) if path.is_file()]


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale; the authors are drawn whatever the data's name."""
    del data
    small = Config()
    smoke = replace(
        small,
        scale="smoke",
        forget=1,
        retain=2,
        real=1,
        towns=2,
        holdout=1,
        facts=("birthplace", "genre"),
        judged=2,
        probed=1,
        depth=1,
        width=16,
        recipe=replace(small.recipe, epochs=2, batch_size=8),
        methods=("identity", "npo", "retain_newton"),
        trials=1,
        passes=2,
        relearn=4,
        models=2,
    )
    paper = replace(
        small,
        scale="paper",
        methods=tuple(CONTENDERS),
        trials=4,
        judged=300,
        recipe=replace(small.recipe, epochs=5, learning_rate=1e-5),
    )
    return {"small": small, "smoke": smoke, "paper": paper}
