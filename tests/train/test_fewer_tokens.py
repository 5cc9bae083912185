import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sequences import LENGTH, SIZES, WORDS, build, tokens, variables
from tiny import quick_jit

from unlearn_jax.data.tokenizer import Tokenizer
from unlearn_jax.models.transformer import Shape
from unlearn_jax.train.fewer_tokens import fewer_tokens, fewer_words
from unlearn_jax.train.llama import Pretrained

KEPT = (9, 2, 3, 7, 9)
LETTERS = Tokenizer(
    lambda text: [ord(letter) - 97 for letter in text],
    lambda numbers: "".join(chr(97 + number) for number in numbers),
    WORDS,
    begin=0,
    end=9,
)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_the_tokens_that_are_left_are_what_they_were(tied):
    model, known = build(tied=tied), variables(tied)
    shape = Shape(WORDS, LENGTH, **SIZES, tied=tied)
    found = fewer_tokens(Pretrained(model, known, shape), KEPT, dtype=jnp.float64)
    rows, numbers = tokens() % 4, np.array([2, 3, 7, 9])
    rows[0, 3:] = -1

    def both(known, cut):
        whole = np.where(rows < 0, -1, numbers[rows])
        return model.apply(known, whole), found.model.apply(cut, rows)

    before, after = quick_jit(both)(known, found.variables)
    there = rows >= 0
    np.testing.assert_allclose(after[there], before[there][:, numbers], atol=1e-12)
    assert found.shape.vocabulary == 4
    like = jax.eval_shape(found.model.init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, found.variables)


def test_words_are_numbered_anew_and_cut_ones_refused():
    words = fewer_words(LETTERS, KEPT)
    assert words.encode("chdj") == [0, 2, 1, 3]
    assert words.decode([0, 2, -1, 3]) == "chj"
    assert (words.size, words.begin, words.end) == (4, None, 3)
    with pytest.raises(ValueError, match=r"'cab' has token 0, 'a', .* the 4"):
        words.encode("cab")
    for wrong in ((), (3, WORDS), (-1, 2)):
        with pytest.raises(ValueError, match="to keep, expected at least one, from 0"):
            fewer_words(LETTERS, wrong)
