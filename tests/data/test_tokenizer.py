import pytest

from unlearn_jax.data.tokenizer import check_vocabulary, read_tokenizer

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def file(tmp_path):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<end>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the cat and the hat and the mat"] * 3, trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def write_gguf(path, file, kind="gpt2", before="gpt-2"):
    """The same tokeniser as a GGUF file holds it."""
    import json

    gguf = pytest.importorskip("gguf")
    model = json.loads(file.read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(before)
    writer.add_token_list(words)
    writer.add_token_types([3 if word == "<end>" else 1 for word in words])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


TEXT = "the hat, über 12 cats\n"


def test_text_becomes_numbers_and_text_again(file, tmp_path):
    found = read_tokenizer(file)
    numbers = found.encode(TEXT)
    assert found.decode(numbers) == TEXT
    assert len(numbers) < len(TEXT.encode())
    assert max(numbers) < found.size
    assert found.encode("cat<end>")[-1] == 0
    assert found.decode([*numbers, 0, -1, -1]) == TEXT
    for beside in (tmp_path, tmp_path / "model.safetensors"):
        assert read_tokenizer(beside).encode(TEXT) == numbers
    other = read_tokenizer(write_gguf(tmp_path / "model.gguf", file))
    assert (other.size, other.end) == (found.size, 0)
    assert other.encode(TEXT + "<end>") == [*numbers, 0]
    assert other.decode(numbers) == TEXT
    digits = write_gguf(tmp_path / "digits.gguf", file, before="smollm")
    assert read_tokenizer(digits).encode("1234") == [
        found.encode(digit)[0] for digit in "1234"
    ]


def test_a_tokeniser_that_does_not_fit_is_refused(file, tmp_path):
    found = read_tokenizer(file)
    check_vocabulary(found, found.size)
    with pytest.raises(ValueError, match=f"{found.size} tokens and the model 256"):
        check_vocabulary(found, 256)
    with pytest.raises(ValueError, match="cannot be read as a tokeniser"):
        read_tokenizer(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"odd.tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path / "odd" / "model.safetensors")
    with pytest.raises(ValueError, match="there is no file"):
        read_tokenizer(tmp_path / "absent.gguf")
    with pytest.raises(ValueError, match="a tokeniser 'bert' cut by 'odd'"):
        read_tokenizer(write_gguf(tmp_path / "odd.gguf", file, "bert", "odd"))
