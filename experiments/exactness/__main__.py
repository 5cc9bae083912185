"""The command ``python -m experiments.exactness``."""

from experiments.exactness import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
