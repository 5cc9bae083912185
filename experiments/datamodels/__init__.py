"""Hundreds of models on random subsets, and what a linear map makes of them.

Question: what do members of an ensemble trained on random halves of the data look like
on examples that they have seen and that they have not, and how well does a datamodel
fitted to some of them predict the others?
Command: ``python -m experiments.datamodels`` (digits, two or three minutes on two CPU
cores); ``--where local --workers 2`` in two processes, ``--where slurm --workers 8
--slurm timeout_min=60`` as an array of SLURM jobs. Killed at any moment the same
command goes on: at most the pieces under way are lost. ``--members 2048`` later extends
the ensemble that is there. It lies below ``kept`` in the folder of results, where other
studies find it, and where ``unlearn_jax.ensembles`` reads it.
Expect: members are right more often on what they have seen; the linear datamodelling
score rises with the number of members without levelling off, since there are more
training examples than members (Ilyas et al. 2022, arXiv 2202.00622, Figure 4).
"""

from experiments.datamodels import config, measure, show
from experiments.frame.study import Study

STUDY = Study(
    "datamodels",
    __doc__,
    config.presets,
    measure.build,
    measure.measure,
    show.show,
    rules=config.RULES,
)
