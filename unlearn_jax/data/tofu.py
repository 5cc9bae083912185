"""TOFU: 200 fictitious authors, 20 questions each, read from a folder of the user's.

The files are those of the public data set, one JSON object in each line: ``full.json``,
``forget01.json``, ``retain99.json``, … and, with paraphrases and wrong answers,
``forget01_perturbed.json``, ``retain_perturbed.json``, ``real_authors_perturbed.json``
and ``world_facts_perturbed.json``. Nothing is downloaded.

Source: Maini et al. 2024, arXiv 2401.06121.
"""

import json
from pathlib import Path
from typing import Any

from unlearn_jax.data.questions import Question


def tofu(folder: str | Path, split: str) -> list[Question]:
    """The questions of one file.

    Args:
        folder: Where the files lie.
        split: Name of a file without its ending, "forget01_perturbed".

    Returns:
        Questions in the order of the file. Where a file has no paraphrase, those of
        questions and answers are the words themselves (real authors and world facts
        have none), and without wrong answers there are none.

    Raises:
        FileNotFoundError: no such file; those that there are are named.
        ValueError: a line that is no question.
    """
    path = Path(folder) / f"{split}.json"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.json")))
        raise FileNotFoundError(
            f"there is no {path.name} in {folder}; expected the files of TOFU there "
            f"({there or 'it has none'})"
        )
    lines = path.read_text("utf-8").splitlines()
    return [_question(path, at, line) for at, line in enumerate(lines, 1) if line]


def _question(path: Path, number: int, line: str) -> Question:
    try:
        told: Any = json.loads(line)
        question, answer = told["question"], told["answer"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}, line {number} is no question ({type(error).__name__}: {error}), "
            "expected a JSON object with question and answer: get the file anew"
        ) from None
    return Question(
        subject="",
        question=question,
        answer=answer,
        paraphrased_question=told.get("paraphrased_question", question),
        paraphrased_answer=told.get("paraphrased_answer", answer),
        perturbed_answers=tuple(told.get("perturbed_answer", ())),
    )
