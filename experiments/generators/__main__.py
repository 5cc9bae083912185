"""The command ``python -m experiments.generators``."""

from experiments.frame.command import main
from experiments.generators import STUDY

if __name__ == "__main__":
    main(STUDY)
