"""The command ``python -m experiments.continual``."""

from experiments.continual import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
