"""The command ``python -m experiments.editing``."""

from experiments.editing import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
