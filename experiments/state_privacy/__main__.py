"""The command ``python -m experiments.state_privacy``."""

from experiments.frame.command import main
from experiments.state_privacy import STUDY

if __name__ == "__main__":
    main(STUDY)
