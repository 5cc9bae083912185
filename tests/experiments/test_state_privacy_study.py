"""What the state reveals: the laws, in one run from end to end."""

import numpy as np
import pytest

from experiments.frame import study
from experiments.state_privacy import STUDY
from experiments.state_privacy.attacks import (
    Examples,
    Guessed,
    invert,
    learn_all,
    memberships,
    reconstruct,
    rows_of,
)
from experiments.state_privacy.measure import NO_NOISE, found_shares
from unlearn_jax.models.random_features import directions, random_kernel


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run at scale smoke: its folder and its numbers."""
    results = tmp_path_factory.mktemp("results")
    assert study.run(STUDY, ["--scale", "smoke", "--results", str(results)]) == 0
    (folder,) = (results / "state_privacy").iterdir()
    return folder, study.read_results(folder).rows


def areas(rows, group):
    """``(AUC, standard error)`` of both scores at every number of rows a feature."""
    chosen = rows.where("auc", group=group)
    assert len(chosen) == 4
    return [(row.value, rows.value("auc_stderr", **row.at)) for row in chosen]


@pytest.mark.slow
def test_one_deleted_row_comes_back_with_label_and_image(run):
    _, rows = run
    assert rows.value("row_error_max", deleted=1) < 1e-6
    assert rows.value("rows_found", deleted=1) == 100
    assert rows.value("label_right", deleted=1) == 100
    assert rows.value("input_error_median", deleted=1) < 1e-3


@pytest.mark.slow
def test_four_deleted_rows_come_back_too(run):
    _, rows = run
    assert rows.value("rows_found", deleted=4) == 100
    assert rows.value("label_right", deleted=4) == 100
    assert rows.value("row_error_median", deleted=4) < 1e-3


@pytest.mark.slow
def test_the_state_tells_rows_within_and_not_deleted_ones(run):
    _, rows = run
    for value, error in areas(rows, "deleted"):
        assert abs(value - 0.5) < 4 * error
        assert 0 < error < 0.05
    for split in ("within", "to be deleted"):
        for value, error in areas(rows, split):
            assert value > 0.5 + 2 * error
    assert list(rows.values("equals_never_learnt")) == [1, 1]
    few, many = (
        rows.value("auc", ratio=ratio, group="within", score="leverage")
        for ratio in (1, 4)
    )
    assert few > 0.95
    assert few > many


@pytest.mark.slow
def test_noise_ruins_the_reconstruction_and_costs_accuracy(run):
    _, rows = run
    assert rows.value("row_error_median", epsilon=NO_NOISE) < 1e-6
    assert rows.value("cosine", epsilon=NO_NOISE) > 1 - 1e-9
    assert rows.value("row_error_median", epsilon=8) > 1
    assert abs(rows.value("cosine", epsilon=8)) < 0.5
    exact, noisy = (rows.value("accuracy", epsilon=e) for e in (NO_NOISE, 8))
    assert exact > 90
    assert 30 < noisy < exact
    value, error = (rows.value(f"auc{end}", epsilon=8) for end in ("", "_stderr"))
    assert value < rows.value("auc_strongest", epsilon=8) + 4 * error


@pytest.mark.slow
def test_the_run_is_written_down(run):
    folder, _ = run
    for name in ("tables.md", "tables.tex", "index.html"):
        assert (folder / name).stat().st_size > 200
    names = {path.name for path in (folder / "figures").glob("*.png")}
    assert names == {"pictures.png", "attacks.png"}
    text = (folder / "tables.md").read_text()
    assert "rows deleted at once" in text
    assert "AUC deleted, after" in text
    assert "noise multiplier" in text
    study.report(STUDY, folder)
    assert (folder / "tables.md").read_text() == text


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
        ("--deleted 2 2", "none of them twice"),
        ("--deleted 5000", "deleted is"),
        ("--ratios 0", "ratios is"),
        ("--ratios 0.01", "ratios is"),
        ("--l2 0", "l2 is 0"),
        ("--delta 1", "delta is 1"),
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
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        study.run(STUDY, [*words.split(), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
