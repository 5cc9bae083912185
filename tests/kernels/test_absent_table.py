"""The page about absent devices says what was compiled, and what was not and why."""

from absent_table import CUBLAS, account, table


def line(name, device, **told):
    kinds = {"name": name, "device": device, "double": False, "large": False}
    return kinds | {"mesh": None} | told


def held(mib, seconds):
    return {"arguments": 0, "results": mib * 2**19, "scratch": mib * 2**19} | seconds


LINES = [
    line("one", "H100", **held(1.0, {"seconds": 9.0})),
    line("one", "H100", **held(2.0, {"seconds": 3.0})),
    line("two", "H100", **held(0.5, {"seconds": 4.0}), cublas=True),
    line("one", "v5e", **held(1500.0, {}), commit="abc"),
    line("two", "v5e", error="ValueError: no\n  room"),
    line("three", "v5e", error="ValueError: no room") | {"mesh": [4, 2]},
]


def test_a_cell_holds_the_last_line_of_its_program():
    assert table(LINES).splitlines() == [
        "| program | H100 | v5e | v5e in 4 by 2 |",
        "| --- | ---: | ---: | ---: |",
        "| one | 2.0 | 1,500.0, at abc |  |",
        "| two | 0.5000 (1) | (2) |  |",
        "| three |  |  | (2) |",
        "",
        f"1. {CUBLAS}",
        "2. ValueError: no room",
    ]


def test_the_account_counts_what_was_taken_and_its_time():
    assert account(LINES[:5]).splitlines() == [
        "* H100: 2 of 2; 2 of them took 7 s of processor time to compile, the longest "
        "4 s (`two`).",
        "* v5e: 1 of 2.",
    ]
