"""What a user can get wrong: one line that says what to do, before any training."""

import contextlib
import io
import signal
import sys
import time

import jax
import numpy as np
import pytest

from experiments import compare, unlearn
from experiments.frame import command as commands
from experiments.frame import problem
from experiments.frame.command import main
from experiments.studies import STUDIES
from unlearn_jax.data.batch import Dataset, Splits, from_arrays

HEADER = {"descr": "<i8", "fortran_order": False, "shape": (10**13,)}
SMOKE = ["--scale", "smoke"]


def huge():
    """An .npy that says it holds 73 TiB."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, HEADER)
    return file.getvalue()


HUGE = huge()


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path):
    """Run a command that must fail with one line; returns the line."""

    def run(words, command=compare.STUDY):
        monkeypatch.setattr("sys.argv", ["command", *words, "--results", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert not list(tmp_path.iterdir()), "something was begun"
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--requests", "random:0"], "size"),
        (["--requests", "random:9999"], "size"),
        (["--requests", "random:0,1"], "cannot read the request"),
        (["--requests", "random:1,000"], "cannot read the request"),
        (["--requests", "random:[5]"], "cannot read the request"),
        (["--requests", "random:" + 9999 * "("], "cannot read the request"),
        (["--requests", "class:3", "class:3"], "class:3, class:3"),
        (["--methods", "ssd", "ssd"], "ssd, ssd"),
        (["--l2", "0.1", "--l2=0.2"], "--l2 is given more than once"),
        (["--data.name", "digits", "--data.name", "diabetes"], "--data.name is given"),
        (["--model.width", "-5"], "model.width is -5; expected at least 0"),
        (["--model.width", "abc"], "parsing --model.width: invalid literal"),
        (
            ["--modle.width", "5"],
            "options: --modle.width, 5; perhaps you meant --model",
        ),
        (["--model.width"], "Missing value for argument '--model.width'"),
        (["--save", "zip"], "invalid choice 'zip' for argument '--save'"),
        (["finetune"], "Unrecognized options: finetune; --help lists all"),
        (["--l2", "nan"], "l2 is nan"),
        (["--options", "ssd.alpha=1", "ssd.alpha=2"], "ssd.alpha twice"),
        (["--options", "finetune.epochs=2.7"], "'2.7' is not a whole number"),
        (["--options", "salun.leaky=3"], "write True or False"),
        (["--options", "newton_removal.batch_size=2.5"], "must be a whole number"),
        (["--options", "ssd.alpha=-1"], "ssd: alpha must not be negative"),
        (["--requests", "class:11"], "label"),
        (["--requests", "sub_class:1"], "finer labels"),
        (["--requests", "clas:3"], "class:3"),
        (["--requests", "class"], "class:3"),
        (["--requests", "file:nowhere.npy"], "nowhere.npy"),
        (["--methods", "ssdd"], "choose from"),
        (["--model.name", "vit"], "choose from"),
        (["--model.name", "linear", "--model.width", "3"], "no width"),
        (["--options", "ssd.alfa=3"], "alpha"),
        (["--options", "ssd.alpha=many"], "not a number"),
        (["--options", "alpha=3"], "name.option=value"),
        (["--seeds.train", "0"], "seed"),
        (["--sweep", "ssd.alpha=1,1"], "gives a value twice"),
        (["--sweep", "sdd.alpha=1"], "cannot read the option"),
        (["--sweep", "ssd.alpha=1", "ssd.alpha=2"], "ssd.alpha twice"),
        (["--sweep", "dmm.epochs=1"], "the sweep names 'dmm', which does not compete"),
        (["--sweep", "finetune.epochs=1,2.5"], "not a whole number"),
        (["--methods", "nowhere.py:mine"], "no file nowhere.py"),
        (["--methods", "ssd", "json:loads"], "loads"),
        (["--model.depth", "0"], "model.depth is 0"),
        (["--oracles", "1"], "oracles"),
        (["--data.limit", "-1"], "limit"),
        (["--data.name", "imagenet"], "choose from"),
        (["--data.name", "diabetes", "--methods", "scrub"], "regression"),
        (["--data.name", "diabetes", "--model.name", "cnn"], "mlp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_in_one_line(refuse, words, says):
    assert says in refuse([*SMOKE, *words])


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("tune", ["--methods", "nosuch"], "no method 'nosuch'; choose from"),
        ("tune", ["--methods", "nowhere.py:mine"], "no file nowhere.py"),
        ("spectrum", ["--l2", "nan"], "l2 is nan; expected at least 0"),
        ("spectrum", ["--l2", "-1"], "l2 is -1.0; expected at least 0"),
        ("dmm", ["--share", "nan"], "share is nan; expected a number between"),
        ("dmm", ["--members", "0"], "members is 0; expected at least 4"),
        ("state_privacy", ["--epsilons", "8", "8"], "none of them twice"),
        ("exactness", ["--single_l2s", "1", "1"], "none of them twice"),
        ("continual", ["--options", "ssd.alpha=1e999"], "alpha must be a finite"),
        ("continual", ["--seed", "-1"], "seed is -1; expected at least 0"),
    ],
)
def test_every_study_refuses_in_one_line(refuse, name, words, says):
    assert says in refuse([*SMOKE, *words], STUDIES[name])


@pytest.mark.parametrize(
    ("content", "says"),
    [("raise SystemExit(0)", "SystemExit"), ("import nowhere", "No module")],
)
@pytest.mark.parametrize("written", ["{path}:mine", "brought_along:mine"])
def test_what_a_user_brings_and_cannot_be_imported_is_refused(
    refuse, monkeypatch, tmp_path_factory, written, content, says
):
    path = tmp_path_factory.mktemp("brought") / "brought_along.py"
    path.write_text(content)
    monkeypatch.syspath_prepend(path.parent)
    words = ["--methods", written.format(path=path)]
    assert says in refuse([*SMOKE, *words])


def test_a_relative_module_is_refused(refuse):
    assert "'..mine'" in refuse([*SMOKE, "--methods", "..mine:method"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", 100_000 * "["),
        ("huge.npy", HUGE),
        ("huge.txt", "9" * 5000),
    ],
)
def test_files_that_ask_for_too_much_are_refused(
    refuse, tmp_path_factory, name, content
):
    path = tmp_path_factory.mktemp("indices") / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "could not be read" in refuse([*SMOKE, "--requests", f"file:{path}"])


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OverflowError])
def test_errors_without_words_are_told_by_their_name(monkeypatch, capsys, error):
    def work(words):
        raise error

    with pytest.raises(SystemExit) as stop:
        main(work)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {error.__name__}\n"


def test_an_interrupt_that_was_swallowed_comes_again(monkeypatch, capsys):
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pytest.skip("interrupts are ignored in this process")
    monkeypatch.setattr(commands, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(commands, "_leave", sys.exit)

    def work(words):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(30)

    with pytest.raises(SystemExit) as stop:
        main(work)
    assert stop.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted;")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_unknown_scale_is_refused(refuse):
    assert "small, smoke, paper" in refuse(["--scale", "huge"])


def test_data_not_on_disk_is_answered_within_two_seconds(refuse, monkeypatch, tmp_path):
    monkeypatch.delenv("UNLEARN_DATA", raising=False)
    start = time.monotonic()
    line = refuse([*SMOKE, "--data.name", "cifar10"])
    assert time.monotonic() - start < 2.0
    assert "cifar10" in line
    assert "--data.dir" in line
    assert "UNLEARN_DATA" in line
    empty = tmp_path.parent / "empty"
    empty.mkdir(exist_ok=True)
    line = refuse([*SMOKE, "--data.name", "cifar10", "--data.dir", str(empty)])
    assert str(empty) in line


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda b: b._replace(inputs=np.where(b.inputs > 1, np.nan, b.inputs)), "NaN"),
        (lambda b: b._replace(inputs=(b.inputs * 10).astype(np.int32)), "float"),
        (lambda b: b._replace(targets=b.targets.astype(np.float32)), "int32"),
        (lambda b: b._replace(targets=b.targets[:-1]), "target"),
        (lambda b: b._replace(targets=b.targets + 5), "label"),
    ],
    ids=["nan", "input dtype", "target dtype", "lengths", "labels"],
)
def test_unfit_data_is_refused(refuse, monkeypatch, spoil, says):
    source = problem.DATASETS["digits"]

    def load(folder):
        data = source.load(folder)
        return data._replace(
            splits=data.splits._replace(train=spoil(data.splits.train))
        )

    spoilt = {**problem.DATASETS, "digits": source._replace(load=load)}
    monkeypatch.setattr(problem, "DATASETS", spoilt)
    assert says in refuse(SMOKE)


def test_unlearn_suggests_the_nearest_method(refuse):
    assert "ssd" in refuse(["sssd"], unlearn.command)


def test_file_with_an_index_out_of_range_is_refused(refuse, tmp_path):
    path = tmp_path.parent / "indices.npy"
    np.save(path, np.array([1, 2, 100000]))
    assert "100000" in refuse([*SMOKE, "--requests", f"file:{path}"])


@pytest.mark.parametrize("name", ["resnet9", "resnet18"])
def test_the_width_of_a_resnet_is_that_of_its_first_stage(name):
    images = from_arrays(np.zeros((2, 16, 16, 1), np.float32), np.array([0, 1]))
    splits = Splits(images, images)
    dataset = Dataset("images", "Images", "classification", 2, splits)
    model = problem.build_model(problem.Network(name=name, width=4), dataset)
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)).params)
    channels = {leaf.shape[-1] for leaf in shapes if leaf.ndim == 4}
    assert min(channels) == 4
    assert max(channels) == (16 if name == "resnet9" else 32)
