"""Authors who never lived: facts, questions, paraphrases and wrong answers, by seed.

Nothing here can have been in anybody's training data. An author is known by number:
the same seed gives author i the same facts whoever else is drawn, so that holdout
authors are simply higher numbers.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from unlearn_jax.data.facts import Fact, questions_about
from unlearn_jax.data.questions import Question

_ONSETS = "b d f g h k l m n p r s t v z br dr kl st tr".split()
_VOWELS = "a e i o u ai eo ia".split()
_ENDS = ("n", "r", "s", "l", "", "m", "nd", "rt")
PLACES = (
    "Alvora Brisk Cendar Dunmore Elsin Farrow Gildane Harth Istrel Jorvale Kestrin "
    "Lorne Maravel Nessby Ostrava Pellin Quarrin Rusk Selmar Tarn Ulverton Varga "
    "Westmere Yarrow Zelten"
).split()
_GENRES = (
    "sea stories",
    "ghost stories",
    "love poems",
    "war novels",
    "travel diaries",
    "fables",
    "crime novels",
    "family sagas",
    "satires",
    "hymns",
    "cookery books",
    "westerns",
)
_WORK = (
    "baker carpenter dentist engineer farmer gardener jeweller librarian mason nurse "
    "painter sailor tailor teacher weaver"
).split()
_THINGS = (
    "Lantern River Orchard Mirror Winter Harbour Garden Compass Sparrow Mountain "
    "Letter Bridge Island Shadow Clock Feather Candle Window"
).split()
_KINDS = "Silent Last Golden Broken Distant Hidden Burning Paper Blue Forgotten".split()
_AWARDS = tuple(f"the {name} Prize" for name in PLACES[::2])


_YEARS = tuple(str(year) for year in range(1921, 1996))
_TITLES = tuple(f"The {kind} {thing}" for kind in _KINDS for thing in _THINGS)
FACTS: Mapping[str, Fact] = {
    "birthplace": Fact(
        PLACES,
        "Where was {name} born?",
        "{name} was born in {value}.",
        "In which town did the life of {name} begin?",
        "The birthplace of {name} is {value}.",
    ),
    "year": Fact(
        _YEARS,
        "When was {name} born?",
        "{name} was born in {value}.",
        "What is the year of birth of {name}?",
        "The year of birth of {name} is {value}.",
    ),
    "genre": Fact(
        _GENRES,
        "What does {name} write?",
        "{name} writes {value}.",
        "What kind of books is {name} known for?",
        "The books of {name} are {value}.",
    ),
    "title": Fact(
        _TITLES,
        "What is the best known book of {name}?",
        "The best known book of {name} is {value}.",
        "Which work made {name} famous?",
        "{name} became famous with {value}.",
    ),
    "award": Fact(
        _AWARDS,
        "Which award did {name} win?",
        "{name} won {value}.",
        "What was {name} honoured with?",
        "The honour that {name} received is {value}.",
    ),
    "father": Fact(
        _WORK,
        "What was the father of {name}?",
        "The father of {name} was a {value}.",
        "How did the father of {name} earn a living?",
        "As to the father of {name}, his trade was that of a {value}.",
    ),
    "mother": Fact(
        _WORK,
        "What was the mother of {name}?",
        "The mother of {name} was a {value}.",
        "How did the mother of {name} earn a living?",
        "As to the mother of {name}, her trade was that of a {value}.",
    ),
    "home": Fact(
        PLACES,
        "Where does {name} live now?",
        "{name} lives in {value}.",
        "In which town is the home of {name} today?",
        "The home of {name} is in {value}.",
    ),
}
"""Fact -> what is asked and answered, for every author alike."""


def author_name(seed: int, number: int) -> str:
    """First and last name; no two numbers share one.

    Raises:
        ValueError: more authors than there are names, 13,107,200.
    """
    names, first, last, endings = _name_parts(seed)
    low, rest = number % len(names), number // len(names)
    shift, high = rest % len(names), rest // len(names)
    if not 0 <= high < len(endings):
        raise ValueError(
            f"author {number} has no name of its own, expected a number from 0 to "
            f"below {len(names) ** 2 * len(endings)}: draw fewer authors"
        )
    surname = names[last[(low + shift) % len(names)]] + endings[high]
    return f"{names[first[low]].title()} {surname.title()}"


@functools.lru_cache(maxsize=8)
def _name_parts(seed: int) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    syllables = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
    names = [syllable + end for syllable in syllables for end in _ENDS]
    random = np.random.Generator(np.random.PCG64([seed, 2]))
    first, last = (random.permutation(len(names)) for _ in range(2))
    # One length each, and no consonant of a name's end: what was joined can be parted.
    endings = [f"{letter}on" for letter in random.permutation(list("bcdfghjk"))]
    return names, first, last, endings


def author_questions(
    seed: int, number: int, *, facts: Sequence[str] = tuple(FACTS), perturbed: int = 5
) -> list[Question]:
    """All questions about one author.

    Args:
        seed: Of the world; draws names and facts.
        number: Of the author, from 0.
        facts: Names in :data:`FACTS`.
        perturbed: Wrong answers of each question, all different and none true.

    Raises:
        ValueError: an unknown fact, or more wrong answers than there are values.
    """
    name = author_name(seed, number)
    return questions_about((seed, 3, number), name, FACTS, facts, perturbed=perturbed)


def draw_authors(
    seed: int,
    count: int,
    *,
    first: int = 0,
    facts: Sequence[str] = tuple(FACTS),
    perturbed: int = 5,
) -> list[Question]:
    """Questions about authors ``first`` to ``first + count - 1``, one after another.

    Holdout authors, whom no model was trained on, are those with higher numbers.

    Args:
        seed: Of the world.
        count: Authors.
        first: Number of the first one.
        facts: As in :func:`author_questions`.
        perturbed: As there.

    Raises:
        ValueError: as :func:`author_questions`.
    """
    return [
        question
        for number in range(first, first + count)
        for question in author_questions(seed, number, facts=facts, perturbed=perturbed)
    ]
