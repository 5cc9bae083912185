import jax
import pytest
import tiny

from unlearn_jax.train import chunk
from unlearn_jax.train.chunk import ChunkMemory, choose_chunk, chunk_memory


@pytest.fixture(scope="module")
def problem():
    return tiny.learner("mlp", epochs=1), tiny.examples()


@pytest.fixture(scope="module")
def need(problem):
    return chunk_memory(*problem)


def test_memory_is_linear_in_the_members(problem, need):
    told = chunk._program_bytes(*problem, 12)
    assert told == pytest.approx(need.fixed + 12 * need.member, rel=0.1)


def test_a_member_needs_at_least_its_weights_and_its_parameters(problem, need):
    learner, data = problem
    params = jax.eval_shape(learner.model.init, jax.random.key(0)).params
    bare = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    assert bare + data.weights.nbytes < need.member < 100 * bare
    assert need.fixed >= data.inputs.nbytes


def test_the_largest_chunk_that_fits_is_taken_and_dealt_evenly(problem, need):
    room = need.fixed + int(5.5 * need.member)
    assert ChunkMemory(*need).members(room) == 5
    assert choose_chunk(*problem, 12, budget=room) == 4  # three programs of four
    assert choose_chunk(*problem, 12, budget=10**12) == 12
    assert choose_chunk(*problem, 12, budget=10**12, most=5) == 4


def test_a_budget_below_one_member_is_refused(problem, need):
    with pytest.raises(ValueError, match="training one member needs"):
        choose_chunk(*problem, 12, budget=need.fixed)


def test_the_default_budget_is_half_of_what_is_free(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 200}

    assert 0 < chunk.memory_budget() < 2**50
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert chunk.memory_budget() == 400
