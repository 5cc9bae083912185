"""Types are checked in functions inside functions too, by one check for all of them."""

import jax.numpy as jnp
import jaxtyping
import pytest
import typed
from jaxtyping import Array, Float, PyTree, TypeCheckError, jaxtyped


def outer(kind):
    @jaxtyped(typechecker=typed.checked_once)
    def inner(value: kind) -> kind:
        return value if value else None

    return inner


def test_one_check_serves_every_call_of_the_outer_function():
    assert outer(int)(1) == 1
    before = len(typed.CHECKS)
    assert outer(int)(2) == 2
    assert len(typed.CHECKS) == before


def test_hints_of_the_same_name_are_told_apart():
    assert outer(int)(1) == 1
    assert outer(str)("a") == "a"
    for kind, wrong, empty in ((int, "a", 0), (str, 1, "")):
        with pytest.raises(TypeCheckError, match="parameters of"):
            outer(kind)(wrong)
        with pytest.raises(TypeCheckError, match="return value"):
            outer(kind)(empty)


@jaxtyped(typechecker=typed.checked_once)
def added(a: PyTree[Float[Array, " n"]], b: PyTree[Float[Array, " n"]]):
    return a, b


def test_every_leaf_of_a_tree_is_checked_and_shares_its_sizes():
    assert jaxtyping._typeguard.typechecked is typed.leaf_check
    three, four = jnp.zeros(3), jnp.zeros(4)
    added({"x": three, "y": [three]}, three)
    for wrong in ({"x": three, "y": [four]}, [three, 1.0], [three.astype(int)], four):
        with pytest.raises(TypeCheckError, match="parameters of"):
            added({"x": three}, wrong)
