"""Every study by name; ``list``, ``report`` and the common test read it."""

from collections.abc import Mapping
from typing import Any

from experiments.attacks import STUDY as attacks
from experiments.attribution_fidelity import STUDY as attribution_fidelity
from experiments.authors import STUDY as authors
from experiments.canvas import STUDY as canvas
from experiments.compare import STUDY as compare
from experiments.continual import STUDY as continual
from experiments.corrective import STUDY as corrective
from experiments.curvature_fidelity import STUDY as curvature_fidelity
from experiments.datamodels import STUDY as datamodels
from experiments.dmm import STUDY as dmm
from experiments.editing import STUDY as editing
from experiments.exactness import STUDY as exactness
from experiments.frame.study import Study
from experiments.freezing import STUDY as freezing
from experiments.generators import STUDY as generators
from experiments.markov import STUDY as markov
from experiments.scaling import STUDY as scaling
from experiments.spectrum import STUDY as spectrum
from experiments.state_privacy import STUDY as state_privacy
from experiments.truth import STUDY as truth
from experiments.tune import STUDY as tune
from experiments.unlearn import STUDY as unlearn

STUDIES: Mapping[str, Study[Any, Any]] = {
    study.name: study
    for study in (
        compare,
        unlearn,
        continual,
        curvature_fidelity,
        dmm,
        exactness,
        attribution_fidelity,
        datamodels,
        corrective,
        scaling,
        spectrum,
        state_privacy,
        markov,
        canvas,
        generators,
        freezing,
        editing,
        attacks,
        authors,
        truth,
        tune,
    )
}
"""Name of the command -> the study."""
