"""Diabetes progression (Efron et al. 2004), shipped inside scikit-learn: regression."""

import numpy as np

from unlearn_jax.data.bands import target_bands
from unlearn_jax.data.batch import Dataset, Splits, from_arrays
from unlearn_jax.data.digits import sklearn_table

_SPLIT_SEED = 0
_TEST = 88


def diabetes() -> Dataset:
    """442 patients, ten measurements each, disease progression after one year.

    The split is a fixed permutation: 354 train, 88 test. Each column of the inputs and
    the target is standardised by its mean and standard deviation over the training
    set; inputs float32 (n, 10), targets float32 (n, 1). Finer labels are fifths of the
    target, 0 the lowest: "sub_class:4" forgets who fared worst.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    table = sklearn_table("load_diabetes")
    inputs = np.asarray(table.data, np.float64)
    targets = np.asarray(table.target, np.float64)[:, None]
    order = np.random.Generator(np.random.PCG64(_SPLIT_SEED)).permutation(len(inputs))
    train, test = np.sort(order[_TEST:]), np.sort(order[:_TEST])

    def standardised(values: np.ndarray) -> np.ndarray:
        mean = values[train].mean(axis=0, keepdims=True)
        std = values[train].std(axis=0, keepdims=True)
        return ((values - mean) / std).astype(np.float32)

    inputs, targets = standardised(inputs), standardised(targets)
    bands = target_bands(targets[train], targets[test])
    return Dataset(
        name="diabetes",
        title="Diabetes (scikit-learn)",
        task="regression",
        classes=1,
        splits=Splits(
            from_arrays(inputs[train], targets[train]),
            from_arrays(inputs[test], targets[test]),
        ),
        subclasses=bands[0],
        test_subclasses=bands[1],
    )
