"""Every kind of generator by its name."""

from collections.abc import Callable, Mapping

from experiments.generators import variational
from experiments.generators.scene import Scene, Setting

KINDS: Mapping[str, Callable[[Setting], Scene]] = {
    "variational": variational.scene,
}
"""Name -> what it brings."""
