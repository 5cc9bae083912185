"""The command ``python -m experiments.attacks``."""

from experiments.attacks import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
