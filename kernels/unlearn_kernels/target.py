"""The platform that programs are made for: sizes and structure ask here, and only here.

What is traced on one machine may run on another: exported, or compiled for a device
that is absent. A kernel that differs by platform alone is chosen when the program is
lowered (``jax.lax.platform_dependent``), which needs no asking; what must be known
earlier, such as the size of a block or the form of a model's layer, asks
:func:`target_platform`. A model's layers never take the former way: a conditional
hides the products behind it from ``curvature.tapping``.
"""

from contextlib import AbstractContextManager
from typing import Literal, TypeAlias

import jax

__all__ = ["Platform", "target_platform", "targeting"]

Platform: TypeAlias = Literal["cpu", "gpu", "tpu"]

_KINDS: dict[str, Platform] = {
    "cpu": "cpu",
    "gpu": "gpu",
    "cuda": "gpu",
    "rocm": "gpu",
    "tpu": "tpu",
}
# Part of the key of every cache of traces, so that no program is found by a context
# that it was not made in.
_asked = jax.make_user_context(default_value=None)


def target_platform() -> Platform:
    """The platform that what is traced now is made for.

    That of the innermost :func:`targeting`; else of ``jax.default_device``, where it
    is set; else JAX's default backend. A platform that is none of the three is treated
    as a GPU: its matrix products are wide.

    Where an argument lies is not looked at: on a host with a GPU, work for its CPU is
    put inside ``targeting("cpu")`` or ``jax.default_device``.
    """
    if _asked.value is not None:
        return _asked.value
    device = getattr(jax.config, "jax_default_device", None)
    name = getattr(device, "platform", device) or jax.default_backend()
    return _KINDS.get(name, "gpu")


def targeting(platform: str) -> AbstractContextManager[None]:
    """Trace programs for a platform, whether this machine has it or not.

    Args:
        platform: "cpu", "gpu", "tpu", or JAX's names for GPUs, "cuda" and "rocm".

    Returns:
        A context in which :func:`target_platform` answers so, in this thread. Functions
        compiled before are traced anew inside of it.

    Raises:
        ValueError: no platform of that name.
    """
    if platform not in _KINDS:
        raise ValueError(
            f"there is no platform {platform!r}; expected one of {', '.join(_KINDS)}"
        )
    return _asked(_KINDS[platform])
