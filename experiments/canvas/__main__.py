"""The command ``python -m experiments.canvas``."""

from experiments.canvas import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
