"""Ensembles on disk: laws, damage, claims, kills, and a SLURM cluster of one node."""

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from ensemble_work import CHUNK, remake

from unlearn_jax import tree
from unlearn_jax.ensembles import disk, train
from unlearn_jax.ensembles.disk import (
    Claims,
    Range,
    missing_ranges,
    new_piece,
    read_outputs,
    write_outputs,
)
from unlearn_jax.ensembles.plan import Plan, make_plan
from unlearn_jax.ensembles.train import train_ensemble
from unlearn_jax.storage.piece import PieceError
from unlearn_jax.storage.write import StorageError
from unlearn_jax.train.ensemble import fit_ensemble

COUNT = 6
VMAP = {"chunk": CHUNK, "members": "vmap"}
FILES = ("outputs.npy", "variables.npz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train_ensemble(folder, *remake(), **VMAP)


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole.folder, tmp_path / "copy"))


def contents(folder):
    return {
        f"{place.name}/{name}": (place / name).read_bytes()
        for place in folder.glob("members-*")
        for name in FILES
    }


def never(*arguments):
    raise AssertionError("nothing is left to train")


def test_members_and_their_outputs_are_those_of_single_runs(whole):
    learner, data, points, plan = remake()
    keys = jax.random.wrap_key_data(plan.keys)
    single = fit_ensemble(keys, learner, data, plan.weights * 1.0, members="loop")
    assert_trees_close(whole.models(), single, rtol=1e-6, atol=1e-8)
    outputs = jax.vmap(learner.model.apply, (0, None))(single, points)
    np.testing.assert_allclose(whole.outputs(), outputs, rtol=1e-6, atol=1e-8)
    assert whole.outputs().dtype == outputs.dtype
    assert (whole.count, len(whole.pieces), whole.points) == (COUNT, 3, 20)
    assert whole.seconds > 0


@pytest.mark.parametrize("members", [slice(None), slice(1, 5, 2), [4, 0, 3], 2])
@pytest.mark.parametrize("points", [slice(3, 9), [7, 1], np.arange(20) < 5])
def test_only_what_is_asked_for_is_given_in_the_order_asked_for(whole, members, points):
    everything, rows = whole.outputs(), np.atleast_1d(np.arange(COUNT)[members])
    np.testing.assert_array_equal(
        whole.outputs(members, points), everything[rows][:, points]
    )
    models = whole.models(members)
    for place, row in enumerate(rows):
        one = tree.member(whole.models(), int(row))
        assert_trees_close(tree.member(models, place), one, rtol=0)


def test_what_is_finished_is_not_trained_again(whole, monkeypatch):
    before = contents(whole.folder)
    monkeypatch.setattr(train, "piece_trainer", lambda *_: never)
    again = train_ensemble(whole.folder, *remake())  # the chunk is remembered
    assert again._replace(like=None) == whole._replace(like=None)
    assert contents(whole.folder) == before


def test_fewer_members_open_a_part(whole, monkeypatch):
    monkeypatch.setattr(train, "piece_trainer", lambda *_: never)
    part = train_ensemble(whole.folder, *remake(count=3))
    assert part.count == 3
    np.testing.assert_array_equal(part.outputs(), whole.outputs(slice(0, 3)))
    assert 0 < part.seconds < whole.seconds


def test_more_members_extend_the_ensemble_bit_for_bit(whole, tmp_path):
    first = train_ensemble(tmp_path, *remake(count=3), **VMAP)
    kept = {name: (tmp_path / name).stat().st_mtime_ns for name in os.listdir(tmp_path)}
    grown = train_ensemble(tmp_path, *remake())
    np.testing.assert_array_equal(grown.outputs(), whole.outputs())
    assert_trees_close(grown.models(), whole.models(), rtol=0)
    for part in first.pieces:
        assert (tmp_path / part.name).stat().st_mtime_ns == kept[part.name]


def test_one_after_another_a_piece_is_a_member(whole, tmp_path):
    looped = train_ensemble(tmp_path, *remake(count=2), members="loop")
    assert looped.pieces == (Range(0, 1), Range(1, 2))
    close = {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(looped.outputs(), whole.outputs(slice(0, 2)), **close)
    assert_trees_close(looped.models(), whole.models(slice(0, 2)), **close)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("outputs.npy", flip),
        ("variables.npz", flip),
        ("outputs.npy", lambda path: os.truncate(path, 100)),
        ("variables.npz", lambda path: path.unlink()),
        ("piece.json", lambda path: path.write_text("{")),
    ],
)
def test_a_damaged_piece_is_named_and_trained_again(whole, copy, name, harm):
    harm(copy / "members-000002-000004" / name)
    with pytest.warns(RuntimeWarning, match=r"members-000002-000004.* is damaged"):
        train_ensemble(copy, *remake())
    assert contents(copy) == contents(whole.folder)


def test_a_piece_that_another_process_mends_meanwhile_is_kept(
    whole, copy, monkeypatch, recwarn
):
    place, looks = copy / "members-000002-000004" / "outputs.npy", []

    def check(folder, part):
        looks.append(part)
        if len(looks) == 2:  # the first look at this piece saw it half read
            raise PieceError("it is damaged")
        return disk.check_piece(folder, part)

    monkeypatch.setattr(train, "check_piece", check)
    monkeypatch.setattr(train, "_train_here", lambda *_: None)
    before = place.stat().st_ino
    train_ensemble(copy, *remake())
    assert looks[1] == looks[2] == Range(2, 4)
    assert place.stat().st_ino == before
    assert not recwarn.list


def test_an_ensemble_with_a_hole_is_not_opened(copy, monkeypatch):
    shutil.rmtree(copy / "members-000002-000004")
    monkeypatch.setattr(train, "_train_here", lambda *_: None)
    with pytest.raises(PieceError, match=r"lost members-000002-000004.*same command"):
        train_ensemble(copy, *remake())


def test_the_room_of_outputs_is_taken_before_they_are_written(tmp_path, monkeypatch):
    part, shape = Range(0, 2), (2, 100_000)
    with new_piece(tmp_path, part) as place:
        write_outputs(place, shape, np.float32)
        # Else the full disk is noticed by the system, which kills the process.
        assert (place / "outputs.npy").stat().st_blocks * 512 >= 800_000

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    other = Range(2, 4)
    with (
        pytest.raises(StorageError, match=r"800 kB.*the disk is full"),
        new_piece(tmp_path, other) as place,
    ):
        write_outputs(place, shape, np.float32)
    assert [path.name for path in tmp_path.iterdir()] == [part.name]


def test_a_piece_that_vanishes_while_it_is_read_is_named(whole, copy):
    opened = whole._replace(folder=copy)
    shutil.rmtree(copy / "members-000002-000004")
    opened.outputs(slice(0, 2))
    for read in (opened.outputs, opened.models):
        with pytest.raises(ValueError, match=r"members-000002-000004.*same command"):
            read()


def others():
    """Ensembles that must not share the folder, and the word that says why."""
    learner, data, points, plan = remake()
    recipe = dataclasses.replace(learner.recipe, epochs=5)
    tanh = learner.model.apply
    bent = learner.model._replace(apply=lambda v, x: 1.5 * tanh(v, x))
    yield "data", (learner, data._replace(inputs=data.inputs + 1), points, plan)
    yield "points", (learner, data, points[:5], plan)
    yield "recipe", (learner._replace(recipe=recipe), data, points, plan)
    yield "l2", (learner._replace(l2=0.5), data, points, plan)
    yield "model", (tiny.learner("norm", epochs=4), data, points, plan)
    yield "probe", (learner._replace(model=bent), data, points, plan)
    yield "keys or weights", (learner, data, points, make_plan(4, plan.weights))
    yield "keys or weights", (learner, data, points, Plan(plan.keys, 1 - plan.weights))


@pytest.mark.parametrize("number", range(8))
def test_a_folder_of_another_ensemble_is_refused_and_kept(whole, number, monkeypatch):
    word, asked = list(others())[number]
    before = contents(whole.folder)
    monkeypatch.setattr(train, "piece_trainer", lambda *_: never)
    with pytest.raises(ValueError, match=rf"other .*{word}.*choose another folder"):
        train_ensemble(whole.folder, *asked)
    assert contents(whole.folder) == before


def test_impossible_values_are_refused(tmp_path):
    learner, data, points, plan = remake()
    wrong = [
        (Plan(plan.keys, plan.weights[:, :5]), {}, "a weight for each member"),
        (Plan(plan.keys[0], plan.weights), {}, "uint32 of shape"),
        (plan, {"chunk": 0}, "chunk of 0 members"),
        (plan, {"where": "local"}, "remake"),
    ]
    for given, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            train_ensemble(tmp_path, learner, data, points, given, **options)


def test_members_are_shared_in_one_way_only(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="one of 2 processes that share"):
        train_ensemble(tmp_path, *remake(), where="local", remake=remake)


def test_member_keys_depend_on_seed_and_number_alone():
    weights = np.ones((5, 3), np.uint8)
    keys = make_plan(2, weights).keys
    np.testing.assert_array_equal(make_plan(2, weights[:2], first=3).keys, keys[3:])
    assert len({key.tobytes() for key in keys}) == 5
    assert (make_plan(3, weights).keys != keys).any()


def test_missing_members_are_what_no_piece_holds():
    held = [Range(2, 4), Range(4, 5), Range(8, 12)]
    assert missing_ranges(held, Range(0, 10)) == [Range(0, 2), Range(5, 8)]
    assert missing_ranges(held, Range(3, 5)) == []
    assert missing_ranges([], Range(3, 5)) == [Range(3, 5)]


def test_bfloat16_outputs_come_back_as_they_were(tmp_path):
    part = Range(0, 2)
    values = np.asarray(jnp.linspace(-3, 3, 10, dtype=jnp.bfloat16)).reshape(2, 5, 1)
    place = tmp_path / part.name
    place.mkdir()
    array = write_outputs(place, values.shape, values.dtype)
    array[:] = values.view(array.dtype)
    array.flush()
    found = read_outputs(tmp_path, part, "bfloat16")
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, values)


def test_members_claimed_by_a_process_are_free_when_it_is_killed(tmp_path):
    text = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'r+b');"
        "fcntl.lockf(file, fcntl.LOCK_EX, 2, 2); print('held', flush=True);"
        "time.sleep(60)"
    )
    claims = Claims(tmp_path)
    command = [sys.executable, "-c", text, str(tmp_path / "claims")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        for part, free in (
            (Range(2, 4), False),
            (Range(3, 6), False),
            (Range(4, 6), True),
        ):
            with claims.hold(part, wait=False) as held:
                assert held is free
        process.kill()
        process.wait()
    with claims.hold(Range(2, 4), wait=False) as held:
        assert held
    claims.close()


def test_a_worker_killed_before_its_piece_has_a_name_costs_that_piece(
    whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("KILL_AT", "2")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = partial(remake, str(tmp_path))
    train_ensemble(tmp_path, *remake(), **VMAP, where="local", workers=1, remake=made)
    assert (tmp_path / "killed").exists()
    trained = (tmp_path / "trained").read_text().split()
    assert sorted(trained) == sorted(part.name for part in whole.pieces)
    assert contents(tmp_path) == contents(whole.folder)
    assert not list(tmp_path.glob(".unlearn-*"))
