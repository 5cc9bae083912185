"""The command ``python -m experiments.curvature_fidelity``."""

from experiments.curvature_fidelity import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
