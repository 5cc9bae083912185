"""A peer's problems as a table: a name, the test that poses it, and a check.

Problems are restated in this library's words; none of a peer's code is here. What the
library does not offer is named too, each with the reason.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Problem(NamedTuple):
    """One problem.

    Attributes:
        name: What is asked, in a few words.
        source: The peer's test that asks it, "path::function" in its repository.
        check: Fails unless the answer, or the refusal, is right.
        slow: Left out of the everyday run.
    """

    name: str
    source: str
    check: Callable[[], None]
    slow: bool = False


class Table:
    """Problems of one project; ``out_of_scope`` maps a test to why it is not asked."""

    def __init__(self, project: str, out_of_scope: dict[str, str]):
        self.project = project
        self.out_of_scope = out_of_scope
        self.problems: list[Problem] = []

    def add(self, name: str, source: str, check: Any, *values: Any, slow: bool = False):
        self.problems.append(Problem(name, source, lambda: check(*values), slow))

    def poses(self, name: str, source: str, *, slow: bool = False) -> Any:
        """Decorator: the function is the check."""

        def keep(check: Any) -> Any:
            self.add(name, source, check, slow=slow)
            return check

        return keep

    def cases(self) -> Any:
        """Decorator that runs a test once for each problem."""
        marked = [
            pytest.param(p, id=p.name, marks=[pytest.mark.slow] if p.slow else [])
            for p in self.problems
        ]
        return pytest.mark.parametrize("problem", marked)

    def check_sources(self) -> None:
        """Names are unique, sources are tests, and nothing is both in and out."""
        names = [problem.name for problem in self.problems]
        assert len(set(names)) == len(names), "two problems share a name"
        for problem in self.problems:
            path, _, function = problem.source.partition("::")
            assert path.endswith(".py"), problem
            assert function.startswith("test"), problem
            assert problem.source not in self.out_of_scope, problem
        assert all(reason for reason in self.out_of_scope.values())


@contextlib.contextmanager
def refused(*words: str):
    """What is inside must be refused by one sentence that holds these words."""
    with pytest.raises((ValueError, TypeError)) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message, message
    for word in words:
        assert word in message, message
