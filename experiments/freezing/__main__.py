"""The command ``python -m experiments.freezing``."""

from experiments.frame.command import main
from experiments.freezing import STUDY

if __name__ == "__main__":
    main(STUDY)
