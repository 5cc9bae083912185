"""Find a prepared TensorFlow Datasets folder and see that it is whole, offline.

Everything here looks at files only, so a set that is not there is one sentence at
once: neither TensorFlow Datasets nor the network is asked.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

DATA_VARIABLE = "UNLEARN_DATA"
"""Environment variable that names the folder of prepared sets."""


class Prepared(NamedTuple):
    """Description: one whole prepared set on disk.

    Attributes:
        name: Its name in TensorFlow Datasets.
        version: Such as "3.0.1".
        root: The folder that holds ``<name>/<version>/``.
        folder: ``<root>/<name>/<version>``.
        lengths: Split -> number of examples, as dataset_info.json says.
        shape: Height, width and channels of one image.
        classes: Number of labels.
        jpeg: The images are lossy JPEG copies.
        fingerprint: Eight hex digits that change when the set does.
    """

    name: str
    version: str
    root: Path
    folder: Path
    lengths: dict[str, int]
    shape: tuple[int, int, int]
    classes: int
    jpeg: bool
    fingerprint: str


def missing(name: str, data_dir: str | Path | None) -> str | None:
    """What keeps the set from being read here and now; None when nothing does."""
    try:
        find_prepared(name, data_dir)
    except (OSError, ValueError, ImportError) as error:
        return str(error)
    return None


def find_prepared(name: str, data_dir: str | Path | None) -> Prepared:
    """The newest prepared version of an image set.

    Args:
        name: Its name in TensorFlow Datasets, such as "fashion_mnist".
        data_dir: Folder that holds ``<name>/<version>/``; None asks UNLEARN_DATA.

    Raises:
        FileNotFoundError: no folder was named, or none holds the set.
        ValueError: the set is there but damaged, half copied, not in array_record
            format, or not made of images of one size with a label.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    if not chosen:
        raise FileNotFoundError(_absent(name, "no folder was named to look in"))
    root = Path(chosen).expanduser()
    folder = _newest(root / name)
    if folder is None:
        looked = "does not exist" if not root.is_dir() else "holds no prepared version"
        where = root if not root.is_dir() else root / name
        raise FileNotFoundError(_absent(name, f"{where} {looked}"))
    info, features = (
        _read_json(folder / file) for file in ("dataset_info.json", "features.json")
    )
    try:
        lengths, shards = _splits(name, folder, info)
        shape, classes, encoding = _image_and_label(name, folder, features)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(folder, f"its description lacks {error}") from error
    sizes = [_check_shard(shard, length).st_size for shard, length in shards]
    described = json.dumps([info, features, sizes], sort_keys=True).encode()
    return Prepared(
        name=name,
        version=folder.name,
        root=root,
        folder=folder,
        lengths=lengths,
        shape=shape,
        classes=classes,
        jpeg=encoding == "jpeg" or "jpeg" in str(info.get("description", "")).lower(),
        fingerprint=hashlib.sha256(described).hexdigest()[:8],
    )


def _absent(name: str, reason: str) -> str:
    return (
        f"data set {name!r} is not on disk ({reason}): name the folder that holds "
        f"{name}/<version>/ with --data.dir or the environment variable "
        f"{DATA_VARIABLE}; to prepare it, run tensorflow_datasets.builder({name!r}, "
        "data_dir=..., file_format='array_record').download_and_prepare() once on a "
        "machine with a network"
    )


def _damaged(folder: Path, what: str) -> ValueError:
    return ValueError(
        f"prepared set {folder} is damaged or half copied: {what}; copy the whole "
        "folder again or prepare it anew"
    )


def _newest(folder: Path) -> Path | None:
    """The highest ``a.b.c`` inside; None when there is none."""
    versions = [
        (tuple(int(part) for part in entry.name.split(".")), entry)
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.name) and entry.is_dir()
    ]
    return max(versions)[1] if versions else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _damaged(path.parent, f"{path.name} is not there") from error
    except ValueError as error:
        raise _damaged(path.parent, f"{path.name} is no JSON ({error})") from error


def _splits(
    name: str, folder: Path, info: Any
) -> tuple[dict[str, int], list[tuple[Path, int]]]:
    """Examples per split, and every shard with the number it should hold."""
    if info.get("fileFormat") != "array_record":
        raise ValueError(
            f"prepared set {folder} is in format {info.get('fileFormat')!r}, expected "
            "'array_record': prepare it again with file_format='array_record'"
        )
    lengths: dict[str, int] = {}
    shards: list[tuple[Path, int]] = []
    for split in info["splits"]:
        counts = [int(count) for count in split["shardLengths"]]
        lengths[split["name"]] = sum(counts)
        stem = f"{name.split('/')[0]}-{split['name']}.array_record"
        for i, count in enumerate(counts):
            shards.append((folder / f"{stem}-{i:05d}-of-{len(counts):05d}", count))
    for split in ("train", "test"):
        if not lengths.get(split):
            raise _damaged(folder, f"dataset_info.json lists no {split} examples")
    return lengths, shards


def _check_shard(shard: Path, length: int) -> os.stat_result:
    """The shard's status, once it is known to hold ``length`` records."""
    from array_record.python.array_record_module import ArrayRecordReader

    if not shard.is_file():
        raise _damaged(shard.parent, f"{shard.name} is not there")
    try:
        reader = ArrayRecordReader(str(shard))
        records = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise _damaged(shard.parent, f"{shard.name} does not open ({error})") from error
    if records != length:
        raise _damaged(
            shard.parent, f"{shard.name} holds {records} of {length} examples"
        )
    return shard.stat()


def _image_and_label(
    name: str, folder: Path, features: Any
) -> tuple[tuple[int, int, int], int, str]:
    """Shape of one image, number of labels, encoding ("png", "jpeg", or "")."""
    parts = features["featuresDict"]["features"]
    if "image" not in parts.get("image", {}) or "classLabel" not in parts.get(
        "label", {}
    ):
        raise ValueError(
            f"prepared set {folder} has the features {', '.join(sorted(parts))}, "
            f"expected an image called 'image' and a class called 'label': {name!r} is "
            "no image classification set"
        )
    image = parts["image"]["image"]
    shape = tuple(int(size) for size in image["shape"]["dimensions"])
    if len(shape) != 3 or min(shape) < 1 or image.get("dtype") != "uint8":
        raise ValueError(
            f"prepared set {folder} has images of shape {shape} and dtype "
            f"{image.get('dtype')}, expected uint8 of one known size (height, width, "
            "channels): prepare a resized version of it"
        )
    classes = int(parts["label"]["classLabel"]["numClasses"])
    encoding = str(image.get("encodingFormat", "")).lower()
    return (shape[0], shape[1], shape[2]), classes, encoding
