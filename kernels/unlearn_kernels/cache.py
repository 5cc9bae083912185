"""What a core of this machine keeps near: the size of blocks on CPU asks here."""

import functools
from pathlib import Path

TOLD = Path("/sys/devices/system/cpu/cpu0/cache")
UNTOLD = 2**21
"""Where the system does not tell: that of many servers."""


@functools.cache
def second_cache_bytes(told: Path = TOLD) -> int:
    """Bytes of the second-level cache of a core, as Linux tells them; else 2 MiB.

    Args:
        told: A folder for each cache, with ``level`` and ``size`` (``2048K``).
    """
    for cache in sorted(told.glob("index*")):
        try:
            level = (cache / "level").read_text().strip()
            size = (cache / "size").read_text().strip()
        except OSError:
            continue
        if level == "2" and size[:-1].isdecimal() and size[-1] in "KM":
            return int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]]
    return UNTOLD
