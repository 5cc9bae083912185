"""Who predicts, from what, and how the truth is made."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.attribution_fidelity.variant import EVERYONE, Variant, Variants
from experiments.frame.plugins import user_file
from experiments.frame.problem import SUBSET_RULES, Data, Network, SubsetConfig
from experiments.frame.rules import at_least, some
from unlearn_jax.train.recipe import Recipe

THREE = tuple(map(Variant, ("ekfac_influence", "trak", "datamodel")))
FEW = tuple(map(Variant, ("ekfac_influence", "tracin", "datamodel")))
COSTLY = ("influence", "metagradient")
"""Attributions that solve, or train again, for every query."""


@dataclass(frozen=True)
class Config(SubsetConfig):
    """Who predicts, from what, and how the truth is made.

    Attributes:
        attributions: Names in ATTRIBUTIONS, or "my_file.py:my_attribution", with
            hyper-parameters after a colon: "trak:width=512,kernel=newton".
        removals: Those of them whose strongest supporters are taken out.
        models: Models of all examples. What reads models is asked with one and with
            all of them; what reads models of subsets, with a quarter and with all.
        checkpoints: Kept of each of their runs.
        subsets: New random subsets that the truth is retrained on.
        retrainings: Of each subset, with other seeds.
        queries: Test examples whose margins are predicted.
        costly_models: Models for what solves, or trains again, for every query and
            model: influence and metagradient.
        exact_queries: Queries for the metagradient, which trains again for each of
            them (0: left out).
        removal_queries: Queries whose supporters are taken out (0: none).
        removed: Supporters taken out of the training set for each.
        removal_retrainings: Models retrained without them.
        bootstrap: Resamples for the standard errors.
    """

    attributions: Variants = EVERYONE
    removals: Variants = THREE
    models: int = 10
    checkpoints: int = 6
    subsets: int = 50
    retrainings: int = 4
    queries: int = 100
    costly_models: int = 1
    exact_queries: int = 0
    removal_queries: int = 10
    removed: int = 20
    removal_retrainings: int = 5
    bootstrap: int = 200

    def jobs(self) -> list[tuple[Variant, int]]:
        """Everybody with every count that it is asked with."""
        return [(one, c) for one in self.attributions for c in self.counts_of(one)]

    def queries_of(self, variant: Variant) -> int:
        """How many it is asked."""
        return self.exact_queries if variant.name == "metagradient" else self.queries

    def counts_of(self, variant: Variant) -> tuple[int, ...]:
        """With how many models, or members, it is asked; empty if it is left out."""
        if variant.name in COSTLY:
            return (self.costly_models,) if self.queries_of(variant) else ()
        if variant.unit == "members":
            return (self.members // 4, self.members)
        return (1, self.models) if self.models > 1 else (1,)


RULES = (
    *SUBSET_RULES,
    *some("attributions"),
    *at_least(0, "exact_queries", "removal_queries"),
    *at_least(1, "models", "checkpoints", "costly_models", "removed", "bootstrap"),
    *at_least(2, "retrainings", "removal_retrainings"),
    *at_least(3, "subsets", "queries"),
)


def check_together(config: Config) -> None:
    """Refuse settings that do not fit one another.

    Raises:
        ValueError: which, and what to change.
    """
    if config.costly_models > config.models:
        raise ValueError(
            f"costly_models is {config.costly_models}, of {config.models} models; "
            "expected at most all"
        )
    if max(config.exact_queries, config.removal_queries) > config.queries:
        raise ValueError(
            f"exact_queries and removal_queries are at most the {config.queries} "
            f"queries, got {config.exact_queries} and {config.removal_queries}"
        )
    unknown = [one.label for one in config.removals if one not in config.attributions]
    if config.removal_queries and unknown:
        raise ValueError(
            f"removals {', '.join(unknown)} are not among the attributions; add them, "
            "or set removal_queries to 0"
        )


def presets(data: str, model: str = "mlp") -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(
        data=Data(name=data, limit=0 if data == "digits" else 2000),
        model=Network(name=model, width=64),
        recipe=Recipe(epochs=30, batch_size=64, learning_rate=0.1),
        exact_queries=20,
    )
    if model == "cnn":
        small = replace(
            small,
            model=Network(name=model, width=8),
            recipe=Recipe(epochs=15, batch_size=64, learning_rate=0.05),
            exact_queries=0,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=replace(small.data, limit=400),
        recipe=replace(small.recipe, epochs=6),
        attributions=FEW,
        removals=FEW[-1:],
        models=1,
        checkpoints=3,
        members=16,
        subsets=8,
        retrainings=2,
        queries=20,
        exact_queries=0,
        removal_queries=2,
        removal_retrainings=2,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data, limit=0 if data == "digits" else 5000),
        models=50,
        members=2000,
        subsets=100,
        retrainings=10,
        queries=300,
        removal_queries=50,
        removal_retrainings=10,
    )
    return {"small": small, "smoke": smoke, "paper": paper}


def files(config: Config) -> list[Path]:
    """Files whose contents the numbers depend on: of what was brought along."""
    brought = [user_file(one.name) for one in config.attributions]
    return [file for file in brought if file is not None]
