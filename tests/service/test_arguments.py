"""What cannot be a request is refused in a sentence, before anything is written."""

import jax
import numpy as np
import pytest
from service.toy import ROWS, apply, learn, open_toy, tree

from unlearn_jax.service.arguments import check_text, count_of, own_arrays
from unlearn_jax.service.audit import audit


@pytest.mark.parametrize(
    ("check", "given", "says"),
    [
        (lambda text: check_text("the id", text), 5, "the id is 5, expected printable"),
        (lambda text: check_text("the id", text), ("a",), "the id is"),
        (lambda text: check_text("the id", text), None, "the id is None"),
        (own_arrays, [ROWS], "arrays is list, expected arrays by name"),
        (own_arrays, {1: ROWS}, "the name of an array is 1"),
        (count_of, 1.5, "rows is 1.5, expected a number of rows"),
        (count_of, np.nan, "rows is nan"),
        (count_of, "2", "rows is '2'"),
    ],
)
def test_types_are_checked_whether_or_not_hints_are(check, given, says):
    with pytest.raises(ValueError, match=says):
        check(given)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"request_id": ""}, "the id of the request is ''"),
        ({"request_id": "a\nb"}, "the id of the request is"),
        ({"request_id": "\ud800"}, "the id of the request is"),
        ({"request_id": "a" * 1001}, "has 1001 characters"),
        ({"arrays": {"a\0b": ROWS}}, "the name of an array is"),
        ({"arrays": {"rows": None}}, "'rows' holds objects"),
        ({"arrays": {"rows": [[1], [1, 2]]}}, "'rows' is no array"),
        ({"arrays": {"rows": jax.random.key(0)}}, "'rows' is no array"),
        ({"arrays": {"rows": np.ma.masked_less(ROWS, 2)}}, "'rows' is masked"),
        ({"arrays": {"x": ROWS, "x.npy": ROWS + 1}}, "do not come back from disk"),
        ({"rows": -1}, "rows is -1, expected a number of rows"),
        ({"rows": 2**80}, "rows is"),
    ],
    ids=str,
)
def test_what_no_request_can_be_leaves_every_byte(tmp_path, change, says):
    good = {"request_id": "a", "kind": "learn", "arrays": learn("")[2], "rows": None}
    with open_toy(tmp_path) as service:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=says) as caught:
            service.submit(**(good | change))
        assert "\n" not in str(caught.value)
        assert tree(tmp_path) == before
        assert service.submit(**good).sequence == 1
    with open_toy(tmp_path) as service:
        assert len(service.entries) == len(audit(tmp_path).rows) == 1


def test_what_the_apply_function_checks_is_never_written(tmp_path):
    class Checked:
        def __call__(self, state, kind, arrays):
            return apply(state, kind, arrays)

        def check(self, kind, arrays):
            if kind != "learn" or "rows" not in arrays:
                raise ValueError("no request of ours")

    with open_toy(tmp_path, apply=Checked()) as service:
        service.submit(*learn("a"))
        before = tree(tmp_path)
        for wrong in (("b", "what", {}), ("b", "learn", {})):
            with pytest.raises(ValueError, match="no request of ours"):
                service.submit(*wrong)
            assert tree(tmp_path) == before
        assert service.submit(*learn("a")).sequence == 1
