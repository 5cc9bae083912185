"""The command ``python -m experiments.authors``."""

from experiments.authors import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
