"""Files of named tensors that others wrote: safetensors and GGUF; never a pickle."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.storage.write import write_bytes

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class Tensors(NamedTuple):
    """Value: what a file holds.

    Attributes:
        arrays: By the file's own names; of GGUF unpacked to float32, rows first.
        facts: What the file says about them; of safetensors its metadata.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def read_tensors(path: str | Path) -> Tensors:
    """All tensors of a ``.safetensors`` or ``.gguf`` file, or of a sharded set.

    Args:
        path: The file; of several, the ``.safetensors.index.json`` that lists them.

    Raises:
        ValueError: not there, another format, a pickle, cut short or damaged, or the
            package that reads it (``safetensors``, ``gguf``) is not installed.

    Cost: the whole file is read; quantised tensors of GGUF grow to float32.
    """
    path = Path(path)
    if path.suffix in _PICKLES:
        raise ValueError(
            f"{path} may be a pickle, which can run any program when it is read; give "
            "the model as .safetensors or .gguf"
        )
    if path.suffix not in (".safetensors", ".gguf", ".json"):
        raise ValueError(
            f"{path} ends in {path.suffix!r}, expected .safetensors, .gguf, or "
            ".safetensors.index.json; convert the model to one of them"
        )
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give one that exists")
    if path.suffix == ".gguf":
        library = package("gguf", "language")
        return _guarded(path, lambda: _gguf(library, path))
    library = package("safetensors.numpy", "safetensors")
    if path.suffix == ".json":
        return _guarded(path, lambda: _shards(path))
    return _guarded(path, lambda: Tensors(library.load_file(path), {}))


def read_facts(path: str | Path) -> dict[str, Any]:
    """What a ``.gguf`` file says, without its tensors.

    Raises:
        ValueError: as :func:`read_tensors`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give one that exists")
    library = package("gguf", "language")
    return _guarded(path, lambda: Tensors({}, _opened(library, path)[1])).facts


def write_safetensors(
    path: str | Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]
) -> None:
    """Write named arrays so that every reader of safetensors finds them.

    Args:
        path: Ends in ``.safetensors``.
        arrays: By name.
        facts: Strings for the metadata.

    Raises:
        StorageError: the disk cannot take it.
        ValueError: safetensors is not installed.
    """
    library = package("safetensors.numpy", "safetensors")
    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(Path(path), library.save(solid, dict(facts) or None))


def package(module: str, extra: str) -> Any:
    """An optional package.

    Raises:
        ValueError: it is not installed; says how it is.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise ValueError(
            f"{name} is not installed; pip install unlearn_jax[{extra}]"
        ) from None


def _guarded(path: Path, read: Any) -> Tensors:
    try:
        return read()
    except Exception as error:  # each library raises its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} cannot be read ({reason}); it is cut short, damaged or of another "
            "format: fetch it once more and compare its size"
        ) from None


def _shards(index: Path) -> Tensors:
    names = json.loads(index.read_text())["weight_map"]
    arrays: dict[str, np.ndarray] = {}
    for part in sorted(set(names.values())):
        arrays |= read_tensors(index.parent / part).arrays
    lacking = sorted(set(names) - set(arrays))
    if lacking:
        raise ValueError(f"its files lack {lacking[0]} and {len(lacking) - 1} more")
    return Tensors(arrays, {})


def _gguf(library: Any, path: Path) -> Tensors:
    reader, facts = _opened(library, path)
    arrays = {}
    for tensor in reader.tensors:
        shape = tuple(int(side) for side in reversed(tensor.shape))
        unpacked = library.dequantize(tensor.data, tensor.tensor_type)
        arrays[tensor.name] = np.asarray(unpacked, np.float32).reshape(shape)
    return Tensors(arrays, facts)


def _opened(library: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    reader = library.GGUFReader(path)
    return reader, {name: field.contents() for name, field in reader.fields.items()}
