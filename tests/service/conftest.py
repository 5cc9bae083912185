"""A folder in memory where there is one: hundreds of copies need no real disk."""

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def quick_path():
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
