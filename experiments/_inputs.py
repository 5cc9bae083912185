"""What a configuration only names: digests of the data and of files of indices."""

from collections.abc import Sequence

import numpy as np

from experiments._config import parse_request
from unlearn_jax.data.batch import Dataset
from unlearn_jax.storage.checksum import file_digest
from unlearn_jax.storage.digest import digest_arrays


def input_digests(dataset: Dataset, requests: Sequence[str] = ()) -> dict[str, str]:
    """Digests that change with the contents of what a run reads.

    A run is gone on with only where they are the same: a forget file that was
    corrected meanwhile must not be judged against the oracles of the old one.

    Args:
        dataset: As the run uses it.
        requests: As on the command line; those with a file are looked at.

    Returns:
        By "data" and by the text of a request with a file, hexadecimal.

    Cost: every byte of the data once, about 1 GB/s.
    """
    arrays = {
        f"{part} {field}": np.asarray(getattr(batch, field))
        for part, batch in zip(("train", "test"), dataset.splits, strict=True)
        for field in batch._fields
    }
    finer = {"train": dataset.subclasses, "test": dataset.test_subclasses}
    arrays |= {f"{k} finer": np.asarray(v) for k, v in finer.items() if v is not None}
    digests = {"data": digest_arrays(b"", "data set", arrays).hex()}
    for text in requests:
        file = parse_request(text).get("file")
        if file is not None:
            digests[text] = file_digest(file)
    return digests
