"""The command ``python -m experiments.tune``."""

from experiments.frame.command import main
from experiments.tune import STUDY

if __name__ == "__main__":
    main(STUDY)
