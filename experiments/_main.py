"""What studies of the old shape import."""

from experiments.frame.command import main as main
from experiments.frame.config import word_after as word_after
