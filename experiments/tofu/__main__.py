"""The command ``python -m experiments.tofu``."""

from experiments.frame.command import main
from experiments.tofu import STUDY

if __name__ == "__main__":
    main(STUDY)
