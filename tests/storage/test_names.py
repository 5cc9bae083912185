import itertools
import os

import pytest

from unlearn_jax.storage.names import file_name


def test_different_words_never_share_a_name_and_stay_in_their_folder(tmp_path):
    long = "x" * 300
    fixed = ["a/b", "a-b", "a:b", "a%2Fb", "a%252Fb", "a b", "..", ".", "%2E", "../up"]
    fixed += [
        ".unlearn-0",
        "\N{LATIN SMALL LETTER A WITH DIAERESIS}",
        "a\u0308",
        "\udcff",
    ]
    fixed += [long, long + "y", long[:84] + "%%", "a\n", "a\0b"]
    drawn = ["".join(letters) for letters in itertools.product("/-:%.2", repeat=4)]
    words = list(dict.fromkeys([*fixed, *drawn]))
    names = [file_name(word) for word in words]
    assert len(set(names)) == len(words)
    for name in names:
        assert len(name) <= 150
        assert not name.startswith(".")
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        (tmp_path / name).touch()
    assert len(os.listdir(tmp_path)) == len(words)


def test_plain_words_stay_as_they_are():
    assert file_name("oracle random=0.1, a+b_c~") == "oracle random=0.1, a+b_c~"


def test_no_name_is_refused():
    with pytest.raises(ValueError, match="at least one character"):
        file_name("")
