"""The command ``python -m experiments.scaling``."""

from experiments.frame.command import main
from experiments.scaling import STUDY

if __name__ == "__main__":
    main(STUDY)
