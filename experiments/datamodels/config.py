"""Which ensemble, and where it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from experiments.frame.problem import SUBSET_RULES, Data, Network, SubsetConfig
from experiments.frame.rules import Rule, at_least
from unlearn_jax.ensembles.train import Way
from unlearn_jax.parallel.launch import Where
from unlearn_jax.train.recipe import Recipe


@dataclass(frozen=True)
class Config(SubsetConfig):
    """Which ensemble, and where it is trained.

    Attributes:
        l2: Coefficient of half the squared norm of the parameters in the objective.
        members: Models that the datamodel is fitted to.
        held_out: Further models that judge it.
        queries: Test examples whose margin is regressed.
        how: Members of a piece as one program ("vmap"), one after another ("loop"), or
            the faster on this device ("auto").
        chunk: Members per program (0: what memory allows).
        where: "here", "local" (processes of this machine) or "slurm".
        workers: Processes or jobs (0: two processes, a job for each piece).
        slurm: Parameters of the jobs as "name=value", such as slurm_partition=short.
    """

    FREE: ClassVar = (*SubsetConfig.FREE, *"how chunk where workers slurm".split())

    model: Network = field(default_factory=lambda: Network(width=32, depth=1))
    recipe: Recipe = field(
        default_factory=lambda: Recipe(epochs=15, batch_size=64, weight_decay=0.0)
    )
    l2: float = 1e-3
    members: int = 1024
    held_out: int = 64
    queries: int = 100
    how: Way = "auto"
    chunk: int = 0
    where: Where = "here"
    workers: int = 0
    slurm: tuple[str, ...] = ()


def slurm_options(words: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of the jobs; numbers are numbers."""
    pairs = (word.partition("=")[::2] for word in words)
    return {k: int(v) if v.isdigit() else v for k, v in pairs}


RULES = (
    *at_least(16, "members"),
    *SUBSET_RULES,
    *at_least(0, "l2", "chunk", "workers"),
    *at_least(3, "held_out", "queries"),
    Rule("slurm", lambda word: "=" in word, "name=value, such as timeout_min=60"),
)


def presets(data: str) -> Mapping[str, Config]:
    """Configurations by scale."""
    small = Config(data=Data(name=data))
    if data != "digits":
        small = replace(
            small,
            data=Data(name=data, limit=10_000),
            model=Network(width=64, depth=1),
            recipe=replace(small.recipe, epochs=5, batch_size=128),
            members=256,
        )
    smoke = replace(
        small,
        scale="smoke",
        data=Data(name=data, limit=300),
        recipe=replace(small.recipe, epochs=5),
        members=48,
        held_out=16,
        queries=30,
    )
    paper = replace(
        small,
        scale="paper",
        data=Data(name=data),
        recipe=replace(small.recipe, epochs=20),
        members=10_000,
        held_out=100,
        queries=1000,
    )
    return {"small": small, "smoke": smoke, "paper": paper}
