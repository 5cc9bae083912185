"""The file of rows: every number to the same bits, every damage told."""

import json
import math

import numpy as np
import pytest

from unlearn_jax.results.record import RecordError, encode_number
from unlearn_jax.results.rows import (
    Row,
    read_rows,
    row_from_dict,
    row_to_dict,
    write_rows,
)
from unlearn_jax.storage.checksum import with_check


def row(value=0.1, failure="", **at):
    return Row("loss", value, "nats", {"method": "ssd", **at}, failure)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, 5e-324, -0.0, 1e308, math.inf, -math.inf, math.nan, None]
)
def test_numbers_come_back_to_the_same_bits(path, value):
    write_rows(path, [row(value, "why" if value is None else "")])
    (back,) = read_rows(path)
    if value is None:
        assert back.value is None
    else:
        assert np.float64(back.value).tobytes() == np.float64(value).tobytes()


def test_lines_are_strict_json(path):
    write_rows(path, [row(math.nan), row(math.inf)])

    def refuse(name):
        raise AssertionError(name)

    told = [json.loads(x, parse_constant=refuse) for x in path.read_text().splitlines()]
    assert [one["value"] for one in told] == ["nan", "inf"]


def test_all_rows_come_back_in_order_with_their_places(path):
    rows = [row(float(i), seed=i, l2=0.1 * i, request="class:3") for i in range(5)]
    write_rows(path, rows)
    assert list(read_rows(path)) == rows


def test_writing_replaces_and_leaves_no_temporary_file(path):
    write_rows(path, [row(1.0), row(2.0)])
    write_rows(path, [row(3.0)])
    assert [r.value for r in read_rows(path)] == [3.0]
    assert list(path.parent.iterdir()) == [path]


def test_array_scalars_are_numbers():
    told = row_to_dict(row(np.float32(0.5), seed=np.int64(3)))
    assert type(told["value"]) is float
    assert type(told["at"]["seed"]) is int
    assert encode_number(np.float64("nan")) == "nan"
    assert row_from_dict(told) == row(0.5, seed=3)


@pytest.mark.parametrize("place", [None, True, [3], math.nan])
def test_a_place_is_text_or_a_finite_number(place):
    with pytest.raises((TypeError, ValueError), match="coordinate"):
        row_to_dict(row(seed=place))


def line(**changes):
    return json.dumps(with_check(row_to_dict(row()) | changes))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"metric": "loss"', "line 2"),
        ("[]", "expected an object"),
        (json.dumps(with_check({"metric": "loss"})), "expected an object with"),
        (line(colour=1), "expected an object with"),
        (line(value="big"), "not a number"),
        (line(unit=3), "expected text"),
        (line(at={"seed": True}), "seed is True"),
        (json.dumps(row_to_dict(row())), "no checksum"),
        (line().replace("ssd", "ssf"), "checksum does not match"),
        (line()[:60], "not a row"),
    ],
)
def test_a_damaged_line_is_named_in_one_line(path, line, says):
    write_rows(path, [row()])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RecordError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert "rows.jsonl, line 2" in message
    assert says in message
    assert "delete it and run the same command again" in message
    assert "\n" not in message
