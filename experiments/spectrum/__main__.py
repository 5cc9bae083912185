"""The command ``python -m experiments.spectrum``."""

from experiments.frame.command import main
from experiments.spectrum import STUDY

if __name__ == "__main__":
    main(STUDY)
