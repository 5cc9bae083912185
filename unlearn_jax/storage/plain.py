"""Configurations as JSON holds them."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain_config(config: Any) -> Any:
    """The configuration as JSON holds it: reading it back gives the same value."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = [field.name for field in dataclasses.fields(config)]
        return {name: plain_config(getattr(config, name)) for name in names}
    if isinstance(config, Mapping):
        return {str(name): plain_config(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain_config(value) for value in config]
    if isinstance(config, np.generic):
        return plain_config(config.item())
    if isinstance(config, float):
        return config if math.isfinite(config) else str(config)
    if isinstance(config, os.PathLike):
        return os.fspath(config)
    if config is None or isinstance(config, str | bool | int):
        return config
    raise TypeError(f"a configuration cannot hold {config!r} ({type(config).__name__})")
