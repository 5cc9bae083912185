"""An attribution with its hyper-parameters, as "trak:width=512,kernel=newton"."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from experiments.frame.options import OptionError, Options, parse_options
from unlearn_jax.attribution import ATTRIBUTIONS, Attribution
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.train.recipe import Learner

_FACTORIES = {name: entry.factory for name, entry in ATTRIBUTIONS.items()}


@dataclass(frozen=True)
class Variant:
    """One that competes: a name in ATTRIBUTIONS, and options that are no defaults."""

    name: str
    options: Options = field(default_factory=Options)

    @property
    def label(self) -> str:
        """As on the command line."""
        own = [word.removeprefix(f"{self.name}.") for word in self.options.words()]
        return f"{self.name}:{','.join(own)}" if own else self.name

    @property
    def unit(self) -> str:
        """What it reads: "members" of subsets, or "models" of all examples."""
        reads = ATTRIBUTIONS[self.name].reads
        return "members" if "ensemble" in reads else "models"

    def made(self, learner: Learner) -> Attribution:
        """The attribution."""
        return _FACTORIES[self.name](as_trained(learner), **self.options.of(self.name))


def read_variants(words: Sequence[str]) -> tuple[Variant, ...]:
    """Variants from the command line.

    Raises:
        OptionError: no such attribution or hyper-parameter, or a wrong value.
    """
    found = []
    for text in words:
        name, _, rest = text.partition(":")
        if name not in ATTRIBUTIONS:
            known = ", ".join(ATTRIBUTIONS)
            raise OptionError(f"there is no attribution {name!r}; choose from {known}")
        try:
            own = [f"{name}.{word}" for word in rest.split(",") if word]
            found.append(Variant(name, parse_options(own, _FACTORIES)))
        except ValueError as error:
            raise OptionError(str(error)) from None
    return tuple(found)


Variants: TypeAlias = Annotated[
    tuple[Variant, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME[:OPTION=VALUE,...] ...]",
        instance_from_str=read_variants,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda variants: [variant.label for variant in variants],
    ),
]
EVERYONE = tuple(map(Variant, ATTRIBUTIONS))
