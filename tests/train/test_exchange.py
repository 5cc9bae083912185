"""Models come from other programs and go to them, or are refused in one sentence."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from asserts import assert_trees_close
from flax import nnx

from unlearn_jax.models import MODELS
from unlearn_jax.train.exchange import (
    SUFFIXES,
    check_format,
    read_variables,
    variables_from,
    write_variables,
)
from unlearn_jax.types import Variables


def normed(seed):
    """Of a net with batch-norm: parameters and statistics share a module's name."""
    random = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731 — one line
    params = {"norm": {"scale": draw(4)}, "blocks": {"0": {"kernel": draw(3, 4)}}}
    return Variables(params, {"norm": {"mean": draw(4), "var": draw(4)}})


VARIABLES = normed(0)
LIKE = jax.eval_shape(lambda: VARIABLES)


def equal(actual, expected):
    assert_trees_close(actual, expected, rtol=0.0)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_what_is_written_is_read(kind, tmp_path):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{SUFFIXES[kind]}"
    write_variables(path, VARIABLES)
    equal(read_variables(path, LIKE), VARIABLES)


def test_plain_orbax_restores_what_is_written(tmp_path):
    write_variables(tmp_path / "model", VARIABLES)
    with ocp.StandardCheckpointer() as plain:
        equal(plain.restore(tmp_path / "model"), VARIABLES._asdict())


def test_a_checkpoint_of_linen_is_read_from_plain_orbax(tmp_path):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))

    made = Net().init(jax.random.key(0), jnp.zeros((1, 2)))
    with ocp.StandardCheckpointer() as plain:
        plain.save(tmp_path / "linen", made)
    expected = Variables(made["params"], made["batch_stats"])
    like = jax.eval_shape(lambda: expected)
    equal(read_variables(tmp_path / "linen", like), expected)
    equal(variables_from(made, like), expected)


def test_a_state_of_nnx_has_no_collections(tmp_path):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)

    params, stats = nnx.state(Net(nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
    expected = Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    like = jax.eval_shape(lambda: expected)
    whole = nnx.state(Net(nnx.Rngs(0)))
    equal(variables_from(whole, like), expected)
    with ocp.StandardCheckpointer() as plain:
        plain.save(tmp_path / "nnx", nnx.to_pure_dict(whole))
    equal(read_variables(tmp_path / "nnx", like), expected)


def test_the_model_decides_the_dtype(tmp_path):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), VARIABLES)
    write_variables(tmp_path / "half.npz", half)
    read = read_variables(tmp_path / "half.npz", LIKE)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(read))


def _params(**change):
    return VARIABLES._replace(params=VARIABLES.params | change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (_params(norm={}), "params/norm/scale is missing"),
        (_params(norm={"scale": jnp.ones(5)}), r"scale is \(5,\), expected \(4,\)"),
        (_params(norm={"scale": jnp.full(4, jnp.nan)}), "scale is not finite"),
        (_params(norm={"scale": np.full(4, 1e300)}), "is not finite in float32"),
        (_params(norm={"scale": np.ones(4, complex)}), "complex128, expected real"),
        (_params(norm={"scale": np.full(4, "1")}), "<U1, expected real numbers"),
        (_params(more=jnp.ones(2)), "params/more is unknown"),
        (Variables({}, {}), "and 1 more"),
    ],
)
def test_another_model_is_refused_in_one_sentence(values, message, tmp_path):
    write_variables(tmp_path / "model.npz", values)
    with pytest.raises(ValueError, match=message) as told:
        read_variables(tmp_path / "model.npz", LIKE)
    assert "model.npz" in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("a.npz", "cannot be read as npz"),
        ("empty", "cannot be read as orbax"),
        ("b.npz", "there is no model"),
        ("c.pt", r"ends in '.pt'"),
    ]:
        with pytest.raises(ValueError, match=message) as told:
            read_variables(tmp_path / name, LIKE)
        assert len(str(told.value).splitlines()) == 1
    with pytest.raises(ValueError, match="format 'hdf5' is unknown"):
        check_format("hdf5")


def test_an_mlp_goes_round(tmp_path):
    model = MODELS["mlp"]((8,), 3, widths=(4,))
    made = model.init(jax.random.key(0))
    write_variables(tmp_path / "mlp", made)
    wider = jax.eval_shape(MODELS["mlp"]((8,), 3, widths=(5,)).init, jax.random.key(0))
    with pytest.raises(ValueError, match="choose the model and its width"):
        read_variables(tmp_path / "mlp", wider)
