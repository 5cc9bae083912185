"""The command ``python -m experiments.datamodels``."""

from experiments.datamodels import STUDY
from experiments.frame.command import main

if __name__ == "__main__":
    main(STUDY)
