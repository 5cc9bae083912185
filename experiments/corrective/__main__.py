"""The command ``python -m experiments.corrective``."""

from experiments.corrective import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
