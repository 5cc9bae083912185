"""Any bit of any file that is read back: flipped, it is told, or it changes nothing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from results.fake_records import fake_records, fake_run, rows_of

from unlearn_jax.data.array_cache import cached
from unlearn_jax.ensembles import disk
from unlearn_jax.results.record import RecordError
from unlearn_jax.results.rows import read_rows, write_rows
from unlearn_jax.results.run import read_run, write_run
from unlearn_jax.storage.arrays import read_arrays, write_arrays
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.storage.store import Store
from unlearn_jax.train import checkpoint

DRAWN = np.random.default_rng(0)
WIDE = DRAWN.normal(size=(12, 7))
SETUP = {"format": 1, "recipe": {"rate": 0.1}, "probe": [1.0, 2.0], "way": "vmap"}


def made_checkpoint(folder):
    tree = {"w": jnp.asarray(WIDE), "half": jnp.arange(3, dtype=jnp.bfloat16)}
    checkpoint.save(folder / "a", tree)
    return folder / "a", lambda: checkpoint.load(folder / "a", tree)


def made_run(folder):
    write_run(folder, fake_run())
    return folder / "run.json", lambda: read_run(folder)


def made_rows(folder):
    path = folder / "rows.jsonl"
    write_rows(path, rows_of(fake_records(train=1, unlearn=1, evaluate=1)[:40]))
    return path, lambda: list(read_rows(path))


def made_arrays(folder):
    write_arrays(folder / "arrays.npz", {"losses/a": WIDE, "losses/b": WIDE[0]})
    return folder / "arrays.npz", lambda: read_arrays(folder / "arrays.npz")


def made_piece(folder):
    store = Store(folder)
    store.save("a", {"x": WIDE}, {"rows": [0.1, None, "b"]})
    store.close()
    return store.path("a"), lambda: store.load("a")


def made_ensemble(folder):
    part, claims = disk.Range(0, 2), disk.Claims(folder)
    disk.open_setup(folder, claims, SETUP)
    with disk.new_piece(folder, part) as place:
        disk.write_outputs(place, WIDE.shape, WIDE.dtype)[:] = WIDE
        disk.write_variables(place, {"w": jnp.asarray(WIDE), "b": jnp.zeros(2)})
        disk.write_about(place, {"rows": ["0a", "0b"], "seconds": 0.5})
    claims.close()
    (folder / disk.CLAIMS_FILE).unlink()

    def read():
        claims = disk.Claims(folder)
        try:
            setup = disk.open_setup(folder, claims, SETUP)
        finally:
            claims.close()
            (folder / disk.CLAIMS_FILE).unlink()
        about = disk.check_piece(folder, part)
        outputs = np.array(disk.read_outputs(folder, part, "float64"))
        return setup, about, outputs, disk.read_variables(folder, part)

    return folder, read


def made_cache(folder):
    def read():
        file = {"dtype": np.float64, "length": 84}
        return cached([folder], "a.npy", **file, make=lambda: WIDE.reshape(84))

    read()
    return folder / "a.npy", read


KINDS = {
    "checkpoint": made_checkpoint,
    "run": made_run,
    "rows": made_rows,
    "arrays": made_arrays,
    "piece": made_piece,
    "ensemble": made_ensemble,
    "cache": made_cache,
}


def equal(a, b):
    """Same structure, same types, same bits."""
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() and type(x) is type(y)
        for x, y in zip(leaves, others, strict=True)
    )


def sweep(place: Path, read, bits: int) -> dict[str, list[int]]:
    """Told, harmless and silent flips by file; so many bits of each, or all."""
    files = [path for path in place.rglob("*") if path.is_file()] or [place]
    right, counts = read(), {}
    for path in files:
        good, count = path.read_bytes(), [0, 0, 0]
        every = range(8 * len(good))
        chosen = every if len(every) <= bits else DRAWN.choice(len(every), bits, False)
        for bit in chosen:
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            said, found = "", None
            try:
                found = read()
            except (ValueError, RecordError, PieceError) as error:
                said = str(error)
            assert len(said.splitlines()) <= 1, said
            assert not said or place.name in said, said
            count[0 if said else 1 if equal(found, right) else 2] += 1
        path.write_bytes(good)
        counts[path.name] = count
    assert equal(read(), right)
    return counts


@pytest.mark.parametrize("bits", [24, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_told_or_harmless(tmp_path, kind, bits):
    counts = sweep(*KINDS[kind](tmp_path), bits)
    told, harmless, silent = np.sum(list(counts.values()), axis=0)
    print(f"{kind}: {told} told, {harmless} harmless, {silent} silent; {counts}")
    assert told + harmless >= bits
    assert silent == 0
    assert told > 0 or kind == "cache"  # a damaged cache is made again
