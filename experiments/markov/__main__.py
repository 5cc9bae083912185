"""The command ``python -m experiments.markov``."""

from experiments.frame.command import main
from experiments.markov import STUDY

if __name__ == "__main__":
    main(STUDY)
