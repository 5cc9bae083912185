"""Draw the digits."""

from experiments.generators.config import Config
from experiments.generators.kinds import KINDS
from experiments.generators.scene import Setting
from unlearn_jax.data.canvas import digit_canvas


def build(config: Config) -> Setting:
    """Plain digits, and what is asked of them.

    Raises:
        ValueError: a digit that there is not, the same one twice, or a method that this
            kind of generator does not have.
    """
    setting = Setting(config, digit_canvas(styles=("plain",), seed=config.seed))
    pair = config.target, config.anchor
    if max(pair) > 9 or config.target == config.anchor:
        raise ValueError(
            f"got target and anchor {pair}, expected two different digits from 0 to 9"
        )
    known = KINDS[config.kind](setting).methods
    wrong = [name for name in config.methods if name not in known]
    if wrong:
        raise ValueError(
            f"the kind {config.kind} has no method {wrong[0]!r}; choose from "
            f"{', '.join(known)}"
        )
    return setting
