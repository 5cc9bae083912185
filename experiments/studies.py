"""Every study by name; ``list``, ``report`` and the common test read it."""

from collections.abc import Mapping
from typing import Any

from experiments.frame.study import Study
from experiments.spectrum import STUDY as spectrum

STUDIES: Mapping[str, Study[Any, Any]] = {study.name: study for study in (spectrum,)}
"""Name of the command -> the study."""
