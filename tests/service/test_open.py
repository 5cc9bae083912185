"""A folder that does not open says the way out; nobody else can read what it holds."""

import os
import stat

import numpy as np
import pytest
from service.toy import bits, learn, open_toy, start_state

from unlearn_jax.service.audit import audit
from unlearn_jax.service.disk import ServiceError


def pending(folder, apply):
    with pytest.raises(ServiceError), open_toy(folder, apply=apply) as service:
        service.submit(*learn("a"))


@pytest.mark.parametrize(
    "apply",
    [
        lambda *_: [][0],
        lambda state, *_: (state, {"figure": "none"}),
        lambda state, *_: (state, None),
        lambda state, *_: (state | {"count": np.array([object()])}, {}),
    ],
    ids=["error", "figure", "figures", "state"],
)
@pytest.mark.parametrize("rows", ["there", "changed", "lost"])
def test_whatever_keeps_a_folder_from_opening_can_be_withdrawn(tmp_path, apply, rows):
    pending(tmp_path, apply)
    path = tmp_path / "pieces" / "1.npz"
    if rows == "changed":
        path.write_bytes(b"")
    elif rows == "lost":
        path.unlink()
    for _ in range(2):
        with pytest.raises(ServiceError, match=r"request 1 \('a'\).* withdraw='a' to"):
            open_toy(tmp_path, apply=apply)
    for _ in range(2):
        with open_toy(tmp_path, apply=apply, withdraw="a") as service:
            assert service.entries[0].outcome == "refused: withdrawn by the caller"
            assert bits(service.state) == bits(start_state() | {"count": np.zeros(())})
            assert os.listdir(tmp_path / "pieces") == []
    assert "withdrawn" in audit(tmp_path).rows[0][6].text
    with open_toy(tmp_path) as service:
        assert service.submit(*learn("b")).outcome == "applied"


def test_what_was_applied_or_never_asked_cannot_be_withdrawn(tmp_path):
    with open_toy(tmp_path) as service:
        service.submit(*learn("a"))
    with pytest.raises(ServiceError, match=r"'a' was applied and can no longer"):
        open_toy(tmp_path, withdraw="a")
    with pytest.raises(ServiceError, match=r"no request has the id 'b'.*; none is"):
        open_toy(tmp_path, withdraw="b")
    open_toy(tmp_path).close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_what_the_folder_holds(tmp_path, umask):
    folder = tmp_path / "a"
    folder.mkdir(mode=0o777)
    old = os.umask(umask)
    try:
        with open_toy(folder, snapshot_every=2) as service:
            for name in "abc":
                service.submit(*learn(name))
            paths = [folder, *folder.rglob("*")]
            assert {"3.npz", "seal", "log.jsonl"} <= {path.name for path in paths}
            for path in paths:
                mode = stat.S_IMODE(path.stat().st_mode)
                want = 0o700 if path.is_dir() else 0o600
                assert mode == want or (path.name, mode) == (".lock", 0o666 & ~umask)
    finally:
        os.umask(old)
