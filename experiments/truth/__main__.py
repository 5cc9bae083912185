"""The command ``python -m experiments.truth``."""

from experiments.frame.command import main
from experiments.truth import STUDY

if __name__ == "__main__":
    main(STUDY)
