"""The command ``python -m experiments.dmm``."""

from experiments.dmm import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
