"""The command ``python -m experiments.compare``."""

from experiments.compare import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
