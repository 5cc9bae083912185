"""Every kind of generator by its name."""

from collections.abc import Callable, Mapping

from experiments.generators import adversarial, masked, unet, variational
from experiments.generators.scene import Scene, Setting

KINDS: Mapping[str, Callable[[Setting], Scene]] = {
    "variational": variational.scene,
    "masked": masked.scene,
    "unet": unet.scene,
    "adversarial": adversarial.scene,
}
"""Name -> what it brings."""
