import io
import json
import shutil

import numpy as np
import pytest

from unlearn_jax.storage.checksum import (
    append_seal,
    check_folder,
    check_sealed,
    checked_row,
    folder_digests,
    seal,
    unseal,
    with_check,
)

ROW = {"a": 1, "b": [0.1 + 0.2, None, "\N{GREEK SMALL LETTER ALPHA}"], "c": {"d": True}}


def flips(content):
    for bit in range(8 * len(content)):
        bad = bytearray(content)
        bad[bit // 8] ^= 1 << bit % 8
        yield bytes(bad)


def test_a_sealed_body_comes_back_and_any_flipped_or_lost_bit_is_told():
    body = b"body\n\n"
    content = body + seal(body)
    assert unseal(content) == body
    check_sealed(io.BytesIO(content))
    harmed = [*flips(content), body, b"", content[:-1], content[1:], content + b"\n"]
    for bad in harmed:
        with pytest.raises(ValueError, match="checksum"):
            unseal(bad)
        with pytest.raises(ValueError, match="checksum"):
            check_sealed(io.BytesIO(bad))


def test_sealing_an_open_file_gives_the_same_bytes(tmp_path):
    for body in (b"x", b"x" * 3_000_000):
        with (tmp_path / "a").open("w+b") as file:
            file.write(body)
            append_seal(file)
        assert (tmp_path / "a").read_bytes() == body + seal(body)


def test_numpy_opens_a_sealed_file_as_it_is(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(400_000))
    body = buffer.getvalue()
    (tmp_path / "a.npy").write_bytes(body + seal(body))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.arange(400_000))
    with (tmp_path / "a.npy").open("rb") as file:
        check_sealed(file)
        assert file.tell() == 0


def test_every_flip_in_a_checked_object_is_told_or_changes_no_value():
    text = json.dumps(with_check(ROW), ensure_ascii=False, indent=1).encode()
    assert checked_row(text) == ROW
    told = 0
    for bad in flips(text):
        try:
            assert checked_row(bad) == ROW
        except ValueError:
            told += 1
    assert told > 0.9 * 8 * len(b"".join(text.split()))


def test_another_layout_is_the_same_object_and_a_missing_checksum_is_told():
    row = with_check(ROW)
    assert list(row)[-1] == "check"
    assert checked_row(json.dumps(dict(reversed(row.items())), indent=4)) == ROW
    for text, says in (
        (json.dumps(ROW), "no checksum"),
        ("[]", "expected an object"),
        ("[" * 100_000, "nested too deep"),
    ):
        with pytest.raises(ValueError, match=says):
            checked_row(text)


def test_a_folder_is_compared_file_by_file(tmp_path):
    whole = tmp_path / "whole"
    (whole / "d").mkdir(parents=True)
    (whole / "d" / "x").write_bytes(b"12345")
    (whole / "empty").touch()
    told = folder_digests(whole)
    assert set(told) == {"d/x", "empty"}
    check_folder(whole, told)
    (whole / "more").write_bytes(b"a file that somebody added")
    check_folder(whole, told)
    for harm, says in (
        (lambda path: path.write_bytes(b"12345".swapcase()[::-1]), "another checksum"),
        (lambda path: path.write_bytes(b"1234"), "has 4 bytes instead of 5"),
        (lambda path: path.unlink(), "has missing bytes instead of 5"),
    ):
        copy = shutil.copytree(whole, tmp_path / says)
        harm(copy / "d" / "x")
        with pytest.raises(ValueError, match=f"d/x has {says.removeprefix('has ')}"):
            check_folder(copy, told)
