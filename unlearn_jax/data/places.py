"""Towns that are on no map: what a model should go on knowing of the world."""

from collections.abc import Mapping, Sequence

from unlearn_jax.data.authors import PLACES
from unlearn_jax.data.facts import Fact, questions_about
from unlearn_jax.data.questions import Question

_RIVERS = "Amber Bourne Corran Dell Esk Fenn Garrow Hallow Ivel Lathe Mere Nidd".split()
_LANDS = "Arlen Borovia Cassia Drum Emberland Folk Gallia Hest Ilmen Kess".split()
_GOODS = "bells boats bricks carpets cheese clocks glass hats knives paper ropes wine"
_SIGHTS = "abbey bridge castle harbour library lighthouse market mill tower zoo"
PLACE_FACTS: Mapping[str, Fact] = {
    "river": Fact(
        _RIVERS,
        "Which river flows through {name}?",
        "{name} lies on the {value}.",
        "On what river was {name} built?",
        "The river of {name} is the {value}.",
    ),
    "land": Fact(
        _LANDS,
        "In which country is {name}?",
        "{name} is in {value}.",
        "What country does {name} belong to?",
        "The country of {name} is {value}.",
    ),
    "goods": Fact(
        tuple(_GOODS.split()),
        "What is made in {name}?",
        "{name} makes {value}.",
        "What do the workshops of {name} sell?",
        "The workshops of {name} make {value}.",
    ),
    "sight": Fact(
        tuple(_SIGHTS.split()),
        "What do visitors see in {name}?",
        "{name} is visited for its {value}.",
        "What is {name} famous for?",
        "The fame of {name} is its {value}.",
    ),
}
"""Fact -> what is asked and answered, for every town alike."""


def draw_places(
    seed: int,
    count: int,
    *,
    facts: Sequence[str] = tuple(PLACE_FACTS),
    perturbed: int = 5,
) -> list[Question]:
    """Questions about the first towns, where authors are born and live.

    Args:
        seed: Of the world.
        count: Towns.
        facts: Names in :data:`PLACE_FACTS`.
        perturbed: Wrong answers of each question, all different and none true.

    Raises:
        ValueError: more towns than there are names, an unknown fact, or more wrong
            answers than there are values.
    """
    if not 0 <= count <= len(PLACES):
        raise ValueError(
            f"got {count} towns, expected 0 to {len(PLACES)}: there are no more names"
        )
    return [
        question
        for number, name in enumerate(PLACES[:count])
        for question in questions_about(
            (seed, 4, number), name, PLACE_FACTS, facts, perturbed=perturbed
        )
    ]
