"""An attribution with its hyper-parameters, as "trak:width=512,kernel=newton"."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from experiments.frame.options import OptionError, Options, parse_options
from experiments.frame.plugins import Factories, entry
from unlearn_jax.attribution import ATTRIBUTIONS, Attribution, Entry
from unlearn_jax.attribution.attribution import as_trained
from unlearn_jax.train.recipe import Learner


def entry_of(name: str) -> Entry:
    """The entry of an attribution; a mere factory that is brought along reads models.

    Raises:
        ValueError: there is no such attribution.
    """

    def wrap(factory: Any) -> Entry:
        return Entry(factory, ("models",), "brought along")

    return entry(name, ATTRIBUTIONS, "attributions", "factory of an attribution", wrap)


_FACTORIES = Factories(entry_of, ATTRIBUTIONS)


@dataclass(frozen=True)
class Variant:
    """One that competes: a name in ATTRIBUTIONS or ``my_file.py:name``, and options."""

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
        reads = entry_of(self.name).reads
        return "members" if "ensemble" in reads else "models"

    def made(self, learner: Learner) -> Attribution:
        """The attribution.

        Raises:
            ValueError: what was brought along gives none.
        """
        factory, options = entry_of(self.name).factory, self.options.of(self.name)
        made = factory(as_trained(learner), **options)
        if not isinstance(made, Attribution):
            raise ValueError(
                f"{self.name} gave {type(made).__name__}, expected a "
                "unlearn_jax.attribution.Attribution"
            )
        return made


def read_variants(words: Sequence[str]) -> tuple[Variant, ...]:
    """Variants from the command line.

    Raises:
        OptionError: no such attribution or hyper-parameter, or a wrong value.
    """
    read = []
    for text in words:
        first, *others = text.split(":")
        brought = first not in ATTRIBUTIONS and bool(others)
        name = f"{first}:{others.pop(0)}" if brought else first
        try:
            entry_of(name)
            own = [f"{name}.{word}" for word in ":".join(others).split(",") if word]
            read.append(Variant(name, parse_options(own, _FACTORIES)))
        except ValueError as error:
            raise OptionError(str(error)) from None
    return tuple(read)


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
