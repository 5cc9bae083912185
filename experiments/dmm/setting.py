"""From a configuration to data, learner and contenders; every refusal happens here."""

from typing import NamedTuple

import numpy as np

from experiments.dmm.config import RESPONSE, Config
from experiments.dmm.contenders import Contender, contenders
from experiments.frame.problem import Problem, problem
from experiments.frame.requests import Asked, check_request
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.data.batch import Dataset
from unlearn_jax.data.subsets import subset_masks
from unlearn_jax.methods.datamodel_matching import READABLE


class Setting(NamedTuple):
    """Description: what is loaded, checked and drawn before anything is trained.

    ``masks`` (members, n) are those of subsets; None where no attribution reads them.
    """

    config: Config
    problem: Problem
    asked: list[Asked]
    contenders: list[Contender]
    masks: np.ndarray | None

    @property
    def dataset(self) -> Dataset:
        """Checked, on the host."""
        return self.problem.dataset


def build(config: Config) -> Setting:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: absent data, numbers or options that make no sense.
    """
    if config.models > config.originals:
        raise ValueError(
            f"models is {config.models}; expected at most the {config.originals} "
            "originals"
        )
    named = [name for name in config.attributions if name != RESPONSE]
    reads = {name: ATTRIBUTIONS[name].reads for name in named}
    for name, fields in reads.items():
        if not set(fields) <= set(READABLE):
            raise ValueError(
                f"attribution {name!r} reads {', '.join(fields)}; here there are "
                f"trained models and an ensemble of subsets"
            )
    made = problem(config.data, config.model, config.recipe)
    asked = [check_request(text, made.dataset) for text in config.requests]
    masks = None
    if any("ensemble" in fields for fields in reads.values()):
        n = len(made.train.targets)
        masks = subset_masks(config.seed, config.members, n, config.share)
        if masks.all():
            raise ValueError(
                f"share is {config.share}: models of all {n} examples do not differ by "
                "them; choose it below 1"
            )
    return Setting(config, made, asked, contenders(config, made.learner), masks)
