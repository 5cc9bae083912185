"""The command ``python -m experiments.attribution_fidelity``."""

from experiments.attribution_fidelity import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
