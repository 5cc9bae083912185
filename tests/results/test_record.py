import json
import math

import numpy as np
import pytest
from results.fake_records import fake_records

from unlearn_jax.results.record import (
    Record,
    RecordError,
    encode_number,
    read_records,
    record_from_dict,
    record_to_dict,
    write_records,
)
from unlearn_jax.storage.checksum import with_check


def record(value=0.1, oracle=None, failure=""):
    return Record(
        "r", "Digits", "mlp", "ssd", "class:3", 0, 1, 2, "loss", "test", value, oracle,
        "nats", failure,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, 5e-324, -0.0, 1e308, math.inf, -math.inf, math.nan, None]
)
def test_numbers_come_back_to_the_same_bits(tmp_path, value):
    path = tmp_path / "records.jsonl"
    write_records(path, [record(value, value, "why" if value is None else "")])
    (back,) = read_records(path)
    for number in (back.value, back.oracle):
        if value is None:
            assert number is None
        else:
            assert np.float64(number).tobytes() == np.float64(value).tobytes()


def test_lines_are_strict_json(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [record(math.nan, math.inf)])

    def refuse(name):
        raise AssertionError(name)

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert (row["value"], row["oracle"]) == ("nan", "inf")


def test_all_records_come_back_in_order(tmp_path):
    records = fake_records(train=2)
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records


def test_writing_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "records.jsonl"
    write_records(path, [record(1.0), record(2.0)])
    write_records(path, [record(3.0)])
    assert [r.value for r in read_records(path)] == [3.0]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_array_scalars_are_numbers():
    row = record_to_dict(record(np.float32(0.5)))
    assert type(row["value"]) is float
    assert encode_number(np.float64("nan")) == "nan"


def line(**changes):
    return json.dumps(with_check(record_to_dict(record()) | changes))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"run": "r"', "line 2"),
        ("[]", "expected an object"),
        (json.dumps(with_check({"run": "r"})), "missing"),
        (line(colour=1), "unknown colour"),
        (line(value="big"), "not a number"),
        (line(train_seed=0.5), "train_seed"),
        (json.dumps(record_to_dict(record())), "no checksum"),
        (line().replace("class:3", "class:4"), "checksum does not match"),
        (line()[:100], "not a record"),
    ],
)
def test_a_damaged_line_is_named_in_one_line(tmp_path, line, says):
    path = tmp_path / "records.jsonl"
    write_records(path, [record()])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RecordError) as caught:
        read_records(path)
    message = str(caught.value)
    assert "records.jsonl, line 2" in message
    assert says in message
    assert "delete it and run the same command again" in message
    assert "\n" not in message


def test_dicts_come_back_as_records():
    assert record_from_dict(record_to_dict(record())) == record()
