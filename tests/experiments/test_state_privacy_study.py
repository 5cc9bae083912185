"""What the state reveals: the laws, in one run from end to end."""

import jax
import numpy as np
import pytest

from experiments import state_privacy
from experiments._state_privacy import (
    Examples,
    Guessed,
    invert,
    learn_all,
    memberships,
    reconstruct,
    rows_of,
)
from experiments._state_privacy_tables import found_shares
from unlearn_jax.models.random_features import directions, random_kernel
from unlearn_jax.results.record import read_records
from unlearn_jax.results.run import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run at scale smoke: its folder and its numbers."""
    results = tmp_path_factory.mktemp("results")
    words = ["--scale", "smoke", "--results", str(results)]
    assert state_privacy.command(words) == 0
    (folder,) = (results / "state_privacy").iterdir()
    records = read_records(folder / "records.jsonl")
    return folder, {(r.request, r.metric, r.split): r.value for r in records}


def areas(numbers, split):
    """``(AUC, standard error)`` of both scores at every number of rows a feature."""
    chosen = [key for key in numbers if key[2] == split and "stderr" not in key[1]]
    assert len(chosen) == 4
    return [
        (numbers[request, metric, split], numbers[request, f"{metric}_stderr", split])
        for request, metric, _ in chosen
    ]


@pytest.mark.slow
def test_one_deleted_row_comes_back_with_label_and_image(run):
    _, numbers = run
    assert numbers["delete 1", "row_error_max", ""] < 1e-6
    assert numbers["delete 1", "rows_found", ""] == 100
    assert numbers["delete 1", "label_right", ""] == 100
    assert numbers["delete 1", "input_error_median", ""] < 1e-3


@pytest.mark.slow
def test_four_deleted_rows_come_back_too(run):
    _, numbers = run
    assert numbers["delete 4", "rows_found", ""] == 100
    assert numbers["delete 4", "label_right", ""] == 100
    assert numbers["delete 4", "row_error_median", ""] < 1e-3


@pytest.mark.slow
def test_the_state_tells_rows_within_and_not_deleted_ones(run):
    _, numbers = run
    for value, error in areas(numbers, "deleted"):
        assert abs(value - 0.5) < 4 * error
        assert 0 < error < 0.05
    for split in ("within", "to be deleted"):
        for value, error in areas(numbers, split):
            assert value > 0.5 + 2 * error
    for request in ("1 rows a feature", "4 rows a feature"):
        assert numbers[request, "equals_never_learnt", ""] == 1
    few, many = (
        numbers[f"{ratio} rows a feature", "auc_leverage", "within"] for ratio in (1, 4)
    )
    assert few > 0.95
    assert few > many


@pytest.mark.slow
def test_noise_ruins_the_reconstruction_and_costs_accuracy(run):
    _, numbers = run
    assert numbers["epsilon inf", "row_error_median", ""] < 1e-6
    assert numbers["epsilon inf", "cosine", ""] > 1 - 1e-9
    assert numbers["epsilon 8", "row_error_median", ""] > 1
    assert abs(numbers["epsilon 8", "cosine", ""]) < 0.5
    exact, noisy = (numbers[f"epsilon {e}", "accuracy", ""] for e in ("inf", 8))
    assert exact > 90
    assert 30 < noisy < exact
    value, error = (
        numbers["epsilon 8", f"auc_residual{end}", ""] for end in ("", "_stderr")
    )
    assert value < numbers["epsilon 8", "auc_strongest", ""] + 4 * error


@pytest.mark.slow
def test_the_run_is_written_down(run):
    folder, _ = run
    assert read_run(folder).seconds is not None
    for name in ("tables.md", "tables.tex", "tables.csv", "index.html"):
        assert (folder / name).stat().st_size > 200
    names = {path.name for path in (folder / "figures").glob("*.png")}
    assert names == {"pictures.png", "attacks.png"}
    text = (folder / "tables.md").read_text()
    assert "rows deleted at once" in text
    assert "AUC deleted, after" in text
    assert "noise multiplier" in text


def sample(count, seed=0):
    """Unit inputs of 5 numbers in 3 classes."""
    random = np.random.default_rng(seed)
    unit = directions(random.normal(size=(count, 5)))
    return Examples(unit, np.eye(3)[random.integers(0, 3, count)])


def test_guesses_stand_in_the_order_of_the_true_rows(key):
    data = sample(30)
    state = learn_all(key, data, width=24, most=3)
    chosen = np.array([20, 4, 11])
    found = reconstruct(key, state, chosen, starts=8, steps=400)
    assert found.row_error.max() < 1e-2
    assert np.all(found.label_right)
    np.testing.assert_allclose(found.inputs, data.unit[chosen], atol=0.05)
    error = np.linalg.norm(found.inputs - data.unit[chosen], axis=1)
    np.testing.assert_allclose(found.input_error, error)
    again = reconstruct(key, state, chosen[::-1], starts=8, steps=400)
    np.testing.assert_allclose(again.inputs[::-1], found.inputs, atol=0.05)


def test_small_numbers_of_a_guess_are_no_equations(key):
    kernel = random_kernel(key, 5, 24)
    data = sample(4)
    rows = rows_of(data, kernel).inputs
    disturbed = np.where(rows == 0, 1e-3, rows)
    np.testing.assert_allclose(invert(kernel, disturbed), data.unit, atol=1e-3)


def test_a_row_counts_as_found_below_one_percent():
    error = np.array([1e-9, 9e-3, 2e-2, 1.0])
    guess = Guessed(error, *[np.zeros(4)] * 4)
    np.testing.assert_array_equal(found_shares([guess]), [50])


def test_membership_sees_the_deletion(key):
    data = sample(120, seed=3)
    groups = [data.at(slice(*ends)) for ends in ((0, 60), (60, 90), (90, 120))]
    found = memberships(key, groups, width=60, l2=0.1)
    assert found.equal
    assert found.within.leverage.auc > 0.8
    assert found.before.leverage.auc > 0.8
    for attack in found.deleted:
        assert abs(attack.auc - 0.5) < 4 * attack.auc_error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--deleted 0", "deleted is"),
        ("--deleted 2 2", "different counts"),
        ("--deleted 5000", "deleted is"),
        ("--ratios 0", "ratios is"),
        ("--ratios 0.01", "ratios is"),
        ("--l2 0", "l2 above 0"),
        ("--delta 1", "delta between"),
        ("--trials 0", "trials"),
        ("--epsilons -1", "epsilons is"),
        ("--width 99999", "width is 99999"),
        ("--noise-width 0", "noise_width is 0"),
        ("--data.name diabetes", "classes"),
        ("--data.name fashion_mnist --data.dir nowhere", "nowhere"),
        ("--scale tiny", "choose from"),
    ],
)
def test_refusals_name_what_to_change_and_begin_nothing(tmp_path, words, says):
    jax.config.update("jax_enable_x64", True)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        state_privacy.command([*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
