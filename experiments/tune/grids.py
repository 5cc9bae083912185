"""Which settings of a method are tried, around what nobody has tuned."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.compare.config import FACTORIES
from experiments.frame.options import hyperparameters
from unlearn_jax.train.recipe import Recipe


class Change(NamedTuple):
    """Description: one option that differs from where the grid begins.

    Attributes:
        option: Its name.
        number: A factor of the value there, or the value.
        factor: Which of the two.
    """

    option: str
    number: float
    factor: bool = True


def times(option: str, *factors: float) -> tuple[Change, ...]:
    """Multiples of the first value; counts are rounded, and at least 1."""
    return tuple(Change(option, factor) for factor in factors)


def values(option: str, *numbers: float) -> tuple[Change, ...]:
    """Values of an option that has none unless it is given."""
    return tuple(Change(option, number, factor=False) for number in numbers)


_RATES = times("learning_rate", 0.1, 0.01, 0.3, 0.03)
_TRAINING = (*_RATES, *times("epochs", 0.5, 2), *times("learning_rate", 3, 0.003))
_LENGTHS = times("scale", 2, 0.5, 4, 0.25, 1.5, 0.75)

GRIDS: Mapping[str, tuple[Change, ...]] = {
    "finetune": _TRAINING,
    "finetune_last": (*times("layers", 2), *_TRAINING),
    "gradient_ascent": _TRAINING,
    "neggrad_plus": (
        *values("share", 0.9, 0.8, 0.99),
        *times("learning_rate", 0.3, 0.1, 3),
        *times("epochs", 0.5, 2),
    ),
    "l1_sparse": (*times("alpha", 10, 30, 3, 100), *_RATES),
    "prune_finetune": (*values("sparsity", 0.8, 0.5, 0.9, 0.7), *_RATES),
    "prune_rewind": (*values("sparsity", 0.8, 0.5, 0.9, 0.7), *_RATES),
    "amnesiac": _TRAINING,
    "random_labels": _TRAINING,
    "salun": (*_RATES, *times("fraction", 0.5, 1.5), *times("epochs", 2, 4)),
    "salun_soft": (*_RATES, *times("fraction", 0.5, 1.5), *times("epochs", 2, 4)),
    "boundary_shrink": _TRAINING,
    "boundary_expanding": _TRAINING,
    "lipschitz": (*_RATES, *times("sigma", 0.2, 2), *times("epochs", 3)),
    "unsir": _TRAINING,
    "prioritised_finetune": _TRAINING,
    "gaussian_amnesiac": _TRAINING,
    "ewc": (*_RATES, *times("strength", 10, 100), *times("epochs", 0.5, 2)),
    "l2_to_init": (*_RATES, *times("strength", 0.1, 10), *times("epochs", 0.5, 2)),
    "fisher_merging": (*_RATES, *times("share", 0.5, 1.5), *times("epochs", 2, 4)),
    "refresh_learning": (*times("ascent_rate", 10, 0.1, 3), *_TRAINING),
    "duck": (*_RATES, *times("forget_weight", 3), *values("repair_epochs", 1)),
    "scar": (*_RATES, *times("foreign_weight", 0.3), *times("forget_weight", 3)),
    "laf": (
        *times("align_rate", 10, 100, 30),
        *times("extract_rate", 10, 100, 30),
        *times("epochs", 2),
    ),
    "slug": (
        *values("goal", 0.9, 0.5),
        *times("tries", 0.5, 2),
        *values("goal", 0.7, 0.3, 0.1),
    ),
    "graddiff": (*_TRAINING, *times("forget_weight", 0.1)),
    "refusal": _TRAINING,
    "dpo": (*_RATES, *times("beta", 10, 100), *times("epochs", 0.5, 2)),
    "llmu": (*_RATES, *times("ascent_weight", 0.1, 2), *times("epochs", 0.5, 2)),
    "npo": (*_RATES, *times("beta", 10, 30), *times("epochs", 0.5, 2)),
    "simnpo": (*_RATES, *times("forget_weight", 8, 2), *times("epochs", 0.5, 2)),
    "npo_smooth": (
        *_RATES,
        *times("smoothing_size", 10, 0.1),
        *times("epochs", 0.5, 2),
    ),
    "opt_out": (*_RATES, *times("strength", 10, 0.1), *times("epochs", 0.5, 2)),
    "mudman": (
        *times("learning_rate", 0.1, 0.3, 3),
        *times("retain_rate", 10, 0.1),
        *times("adversary_rate", 10, 0.1),
        *times("steps", 2),
    ),
    "wagle": (*_RATES, *times("fraction", 0.5, 0.25), *times("epochs", 0.5, 2)),
    "undial": (*_RATES, *times("strength", 0.3, 0.1), *times("epochs", 0.5, 2)),
    "ce_u": _TRAINING,
    "wga": (*_TRAINING, *times("power", 0.5)),
    "satimp": (*_RATES, *times("forget_weight", 10, 3), *times("epochs", 0.5, 2)),
    "flat": _TRAINING,
    "sophia": (*_RATES, *times("rho", 10, 0.1), *times("epochs", 0.5, 2)),
    "rmu": (*_RATES, *times("length", 3, 0.3), *times("epochs", 0.5, 2)),
    "ssd": (*times("alpha", 3, 1 / 3, 10, 0.1), *times("dampening", 0.3, 0.1, 3, 10)),
    "ssd_batch": times("alpha", 3, 1 / 3, 10, 0.1, 2, 0.5, 30),
    "lfssd": (*times("alpha", 3, 1 / 3, 10, 0.5), *times("dampening", 0.3, 0.1, 3)),
    "potion": (*times("rho", 0.5, 2, 0.25, 4), *values("growth", 1.2, 1.05, 1.5)),
    "fisher_forgetting": times("alpha", 10, 100, 1000, 0.1, 1e4, 1e5, 0.01),
    "influence_removal": (*_LENGTHS, *values("damping", 0.1, 0.01)),
    "newton_removal": (
        *values("damping", 0.1, 0.01, 0.3, 0.003),
        *times("iterations", 2, 3),
        *values("damping", 1.0, 0.001),
    ),
    "influence_unlearning": times("alpha", 10, 100, 3, 30, 300, 0.1, 1000),
    "retain_newton": (
        *times("nats", 4, 0.25, 16),
        *times("steps", 2, 4),
        *times("beta", 10),
        *times("damping", 0.1, 10),
    ),
    "source_removal": (*_LENGTHS, *times("scale", 3, 0.1)),
    "natural_ascent": (*times("nats", 4, 0.25, 16, 2), *times("steps", 0.2, 0.04, 2)),
    "unrolled_removal": (
        *times("scale", 2, 0.4),
        *times("polish_rate", 0.2, 2),
        *times("polish", 2, 0.5),
        *times("nats", 4, 0.25),
    ),
    "bad_teacher": _TRAINING,
    "stochastic_teacher": (*_RATES, *times("imitate", 0.1, 10), *times("epochs", 3)),
    "scrub": (*_RATES, *times("ascent_epochs", 0.5, 2), *times("alpha", 10, 100)),
    "blindspot": (*_RATES, *times("epochs", 2, 4), *times("blind_epochs", 4, 10)),
    "dmm": _TRAINING,
    "oracle_matching": _TRAINING,
}
"""Name of a method -> changes of one option each, in order of use."""


def beginning(method: str, recipe: Recipe) -> dict[str, Any]:
    """Where a method's grid begins: as its data were trained, where it descends.

    The published rates and batches belong to other data and nets; those of training are
    what everybody knows. Whatever else there is stays at the factory's default.
    """
    known = hyperparameters(FACTORIES[method])
    if "learning_rate" not in known:
        return {}
    words = ("learning_rate", "batch_size")
    return {word: getattr(recipe, word) for word in words if word in known}


def settings(method: str, begun: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What each change of a method's grid sets, typed as its factory wants it.

    Args:
        method: A name; one without a grid has no settings.
        begun: Its options where they differ from the factory's defaults.
    """
    known = hyperparameters(FACTORIES[method])
    for option, number, factor in GRIDS.get(method, ()):
        default = known[option].default
        value = number * begun.get(option, default) if factor else number
        counts = isinstance(default, int)
        yield {option: max(1, round(value)) if counts else float(f"{value:.3g}")}
