import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from sequences import SIZES, WORDS, tokens, variables, written_out

from unlearn_jax.models.stacking import stack_blocks
from unlearn_jax.models.transformer import Shape
from unlearn_jax.train.llama import read_llama, write_llama

safetensors = pytest.importorskip("safetensors.numpy")
SHAPE = Shape(vocabulary=WORDS, context=9, **SIZES, tied=False)
FACTS = {
    "context_length": 9,
    "embedding_length": 8,
    "block_count": 2,
    "feed_forward_length": 10,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 6,
    "rope.dimension_count": 6,
    "vocab_size": WORDS,
}


@pytest.fixture(scope="module")
def params():
    """In float32, as files hold them."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables(False).params)


@pytest.fixture
def folder(params, tmp_path):
    write_llama(tmp_path / "model", SHAPE, params)
    return tmp_path / "model"


def change(folder, how, **facts):
    """Write the tensors and the configuration once more, altered."""
    file, about = folder / "model.safetensors", folder / "config.json"
    arrays = safetensors.load_file(file)
    how(arrays)
    file.write_bytes(safetensors.save(arrays))
    about.write_text(json.dumps(json.loads(about.read_text()) | facts))


def paired(weight, heads):
    """(out, in) of halves to the order of pairs, row by row."""
    size = len(weight) // heads
    order = [
        head * size + half * (size // 2) + number
        for head in range(heads)
        for number in range(size // 2)
        for half in range(2)
    ]
    return np.asarray(weight)[order]


def write_gguf(path, params, **facts):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (FACTS | facts).items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    block = {
        "attn_norm": lambda b: b["before_attention"]["scale"],
        "attn_q": lambda b: paired(b["attention"]["query"]["kernel"].T, 4),
        "attn_k": lambda b: paired(b["attention"]["key"]["kernel"].T, 2),
        "attn_v": lambda b: b["attention"]["value"]["kernel"].T,
        "attn_output": lambda b: b["attention"]["out"]["kernel"].T,
        "ffn_norm": lambda b: b["before_mlp"]["scale"],
        "ffn_gate": lambda b: b["gate"]["kernel"].T,
        "ffn_up": lambda b: b["up"]["kernel"].T,
        "ffn_down": lambda b: b["down"]["kernel"].T,
    }
    arrays = {
        "token_embd": params["tokens"]["embedding"],
        "output_norm": params["norm"]["scale"],
        "output": params["head"]["kernel"].T,
    }
    for number, own in params["blocks"].items():
        arrays |= {f"blk.{number}.{name}": pick(own) for name, pick in block.items()}
    for name, array in arrays.items():
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_was_written_is_read_back_by_the_published_names(params, folder):
    arrays = safetensors.load_file(folder / "model.safetensors")
    block = params["blocks"][1]
    for name, expected in (
        ("model.embed_tokens", params["tokens"]["embedding"]),
        ("model.layers.1.self_attn.q_proj", block["attention"]["query"]["kernel"].T),
        ("model.layers.1.mlp.down_proj", block["down"]["kernel"].T),
        ("lm_head", params["head"]["kernel"].T),
    ):
        np.testing.assert_array_equal(arrays[f"{name}.weight"], expected)
    assert len(arrays) == 3 + 2 * 9
    for scan in (False, True):
        found = read_llama(folder, scan=scan)
        assert found.shape == SHAPE._replace(scan=scan)
        known = variables(False)._replace(params=params)
        expected = stack_blocks(known) if scan else known
        assert_trees_close(found.variables, expected, rtol=0)
    again = folder.parent / "again"
    write_llama(again, found.shape, found.variables.params)
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_gguf_file_holds_queries_and_keys_in_pairs(params, tmp_path):
    found = read_llama(write_gguf(tmp_path / "model.gguf", params), scan=False)
    assert found.shape == SHAPE
    assert_trees_close(found.variables.params, params, rtol=0)
    # Scores by neighbouring numbers as complex ones, from the weight in the file.
    own = params["blocks"][0]["attention"]["query"]["kernel"]
    x = np.random.default_rng(0).standard_normal((2, 8))
    turn = np.exp(1j * np.arange(2)[:, None] * 10_000.0 ** (-2 * np.arange(3) / 6))

    def score(weight, neighbours):
        q = (x @ weight.T)[:, :6]
        pairs = q[:, ::2] + 1j * q[:, 1::2] if neighbours else q[:, :3] + 1j * q[:, 3:]
        return np.real(np.conj(pairs * turn) @ (pairs * turn).T)

    np.testing.assert_allclose(
        score(paired(own.T, 4), True), score(own.T, False), rtol=1e-6
    )
    assert np.abs(score(paired(own.T, 4), False) - score(own.T, False)).max() > 1e-2


def test_a_model_that_was_read_computes_the_same(params, folder):
    found = read_llama(folder, scan=False)
    rows = tokens(1)
    got = found.model.apply(found.variables, rows)[0]
    np.testing.assert_allclose(got, written_out(params, rows[0]), atol=1e-5)


def test_weights_without_a_head_are_tied(params, tmp_path):
    tied = {name: value for name, value in params.items() if name != "head"}
    write_llama(tmp_path, SHAPE._replace(tied=True), tied)
    found = read_llama(tmp_path / "model.safetensors", scan=False, context=5)
    assert found.shape == SHAPE._replace(tied=True, context=5)
    assert_trees_close(found.variables.params, tied, rtol=0)


KEY = "model.layers.0.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("how", "facts", "message"),
    [
        (lambda a: a.pop(KEY), {}, f"{KEY} is missing"),
        (lambda a: a.update(odd=a[KEY]), {}, "odd is unknown"),
        (lambda a: a.update({KEY: a[KEY].T.copy()}), {}, r"is \(12, 8\)|is \(8, 12\)"),
        (lambda a: a[KEY].__setitem__((0, 0), np.nan), {}, "is not finite"),
        (lambda a: None, {"num_hidden_layers": 3}, r"layers\.2\..* is missing"),
        (lambda a: None, {"model_type": "gpt2"}, "a model of type 'gpt2'"),
        (lambda a: None, {"rope_scaling": {"rope_type": "llama3"}}, "positions"),
        (lambda a: None, {"attention_bias": True}, "a bias in attention"),
        (lambda a: None, {"hidden_size": None}, "hidden_size = None"),
    ],
)
def test_weights_of_another_model_are_refused(folder, how, facts, message):
    change(folder, how, **facts)
    with pytest.raises(ValueError, match=message):
        read_llama(folder)


def test_files_that_are_no_weights_are_refused(params, folder, tmp_path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut short, damaged"):
        read_llama(folder)
    whole = write_gguf(tmp_path / "model.gguf", params).read_bytes()
    for size in (200, len(whole) - 300):
        (tmp_path / "model.gguf").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.gguf cannot be read"):
            read_llama(tmp_path / "model.gguf")
    for name, message in (
        ("pytorch_model.bin", "may be a pickle"),
        ("model.onnx", "ends in '.onnx'"),
        ("absent.gguf", "there is no file"),
    ):
        if name != "absent.gguf":
            (folder / name).write_bytes(b"anything")
        with pytest.raises(ValueError, match=message):
            read_llama(folder / name)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no config\.json"):
        read_llama(folder)


def test_several_files_are_one_model(params, folder):
    file = folder / "model.safetensors"
    arrays = safetensors.load_file(file)
    file.unlink()
    names = {}
    for number in range(2):
        part = {k: v for i, (k, v) in enumerate(arrays.items()) if i % 2 == number}
        (folder / f"{number}.safetensors").write_bytes(safetensors.save(part))
        names |= dict.fromkeys(part, f"{number}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert_trees_close(read_llama(folder, scan=False).variables.params, params, rtol=0)
    index.write_text(json.dumps({"weight_map": names | {"odd": "0.safetensors"}}))
    with pytest.raises(ValueError, match="its files lack odd"):
        read_llama(folder)
