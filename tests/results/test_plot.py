import csv
import re

import numpy as np
import pytest
from results.fake_records import METHODS, fake_losses, fake_records
from results.overlaps import overlaps

from unlearn_jax.results import checks, plot
from unlearn_jax.results.plot import gap_figure, loss_histograms, price_figure
from unlearn_jax.results.plot_data import NEAREST, gap_data, loss_data, price_data
from unlearn_jax.results.plot_looks import LOOKS, colour, look
from unlearn_jax.results.plot_style import PANEL_INCHES, save_figure
from unlearn_jax.results.summary import summarise

RECORDS = fake_records(unlearn=1, evaluate=1)
MANY = {f"method_{i}": ((-0.1 * i, 0.2 * i, 0.1), 0.5, 0.1 * 1.1**i) for i in range(18)}


def test_colours_are_fixed_okabe_ito():
    assert colour("oracle") == "#000000"
    hues = [own["color"] for own in LOOKS.values()]
    assert all(re.fullmatch("#[0-9A-F]{6}", hue) for hue in hues)
    assert colour("my_own_method") == colour("my_own_method")


def test_a_variant_has_the_colour_of_its_family():
    assert colour("ssd alpha=3") == colour("ssd")
    assert colour("ssd_batch") == colour("ssd_batch alpha=3")
    assert colour("source: segments=2") == colour("source")
    assert look("ssd", marker=".")["marker"] == "D"
    assert look("ssd alpha=3", marker=".")["marker"] == "."
    assert look("EK-FAC, 3")["color"] == look("K-FAC")["color"]


def test_gap_figure_has_a_panel_per_split_and_a_dot_per_method():
    figure = gap_figure(RECORDS)
    assert len(figure.axes) == 3
    assert figure.get_size_inches()[0] == pytest.approx(3 * PANEL_INCHES)
    for panel in figure.axes:
        dots = [line for line in panel.lines if line.get_marker() == "o"]
        assert len(dots) == len(METHODS) - 1
        low, high = panel.get_xlim()
        assert all(low < line.get_xdata()[0] < high for line in dots)
        assert "gap to the oracle" in panel.get_xlabel()


def test_gap_rows_hold_what_is_drawn():
    rows = gap_data(RECORDS)
    assert len(rows) == 3 * (len(METHODS) - 1)
    assert all(row["low"] <= row["gap"] <= row["high"] for row in rows)
    assert all(row["floor"] > 0 for row in rows)


SAME = {
    f"influence_unlearning alpha={i}": ((-0.1, 0.2, 0.1 * (i % 3)), 0.5, 0.1)
    for i in range(40)
}


@pytest.mark.parametrize("crowd", [METHODS, MANY, METHODS | MANY, SAME])
def test_no_text_of_a_figure_lies_over_another(crowd):
    methods = crowd | {"oracle": METHODS["oracle"]}
    records = fake_records(unlearn=1, evaluate=1, methods=methods)
    arrays = fake_losses(methods=methods)
    for figure in (
        gap_figure(records),
        price_figure(records),
        loss_histograms(arrays, "random 5%", list(methods)[:6]),
    ):
        assert overlaps(figure) == []


def test_ticks_keep_apart_where_one_gap_dwarfs_the_rest(monkeypatch):
    rows = [
        row | dict(zip(("gap", "low", "high", "floor"), gaps, strict=True))
        for row in gap_data(RECORDS)
        for gaps in [(-4.0, -8.0, 0.4, 0.0) if row["method"] == "ssd" else (0.0,) * 4]
    ]
    monkeypatch.setattr(plot, "gap_data", lambda records: rows)
    assert overlaps(gap_figure(RECORDS)) == []


def test_every_dot_has_its_name_or_a_number_of_the_key():
    for methods, keyed in ((METHODS, False), (METHODS | SAME, True)):
        records = fake_records(unlearn=1, evaluate=1, methods=methods)
        prices = [row for row in price_data(records) if row["request"] > 0]
        names = [row["method"] for row in prices]
        figure = price_figure(records)
        shown = [text.get_text() for text in figure.axes[0].texts]
        keys = [t.get_text() for each in figure.legends for t in each.get_texts()]
        numbers = [str(i + 1) for i in range(len(names))]
        assert shown == (numbers if keyed else names)
        told = [f"{n}  {name}" for n, name in zip(numbers, names, strict=True)]
        assert keys == (told if keyed else [])


def test_prices_are_shares_of_retraining_and_distances_those_of_the_check():
    summaries = summarise(RECORDS)
    whole = summaries["oracle", "forget_cpu_seconds", "all"].mean
    rows = {row["method"]: row for row in price_data(RECORDS)}
    for method, row in rows.items():
        assert row["floors"] == checks.distance(method, summaries)
        if method == "original":
            assert row["request"] == row["prepare"] == 0.0
            continue
        own = summaries[method, "forget_cpu_seconds", "all"].mean
        assert row["request"] == pytest.approx(own / whole)
        assert (row["prepare"] > 0) == ("ss" in method)
    assert "oracle" not in rows
    unpriced = [r for r in RECORDS if r.metric != "forget_cpu_seconds"]
    assert price_data(unpriced) == []


def test_what_lies_at_the_oracles_is_drawn_at_the_edge(monkeypatch):
    monkeypatch.setattr(checks, "distance", lambda method, summaries: 0.0)
    (panel,) = price_figure(RECORDS).axes
    low, high = panel.get_ylim()
    assert 0 < low < NEAREST < 1 < high


def test_loss_histograms_are_shares_of_all_examples():
    arrays = fake_losses()
    arrays["losses/random 5%/ssd/forget"][0, :9] = np.inf
    rows = loss_data(arrays, "random 5%", ["original", "oracle", "ssd", "absent"])
    sums = {}
    for row in rows:
        place = (row["method"], row["group"])
        sums[place] = sums.get(place, 0.0) + row["share"]
    assert set(sums) == {
        (m, g) for m in ("original", "oracle", "ssd") for g in ("forget", "unseen")
    }
    np.testing.assert_allclose(sums.pop(("ssd", "forget")), 1 - 9 / 450)
    np.testing.assert_allclose(list(sums.values()), 1.0)
    assert loss_data({}, "random 5%", ["ssd"]) == []


def test_loss_panels_are_as_many_as_methods_with_arrays():
    figure = loss_histograms(fake_losses(), "random 5%", ["oracle", "ssd", "absent"])
    assert sum(panel.get_visible() for panel in figure.axes) == 2
    zeros = {
        "losses/r/ssd/forget": np.zeros((1, 5)),
        "losses/r/ssd/unseen": np.ones((1, 5)),
    }
    assert len(loss_histograms(zeros, "r", ["ssd"]).axes) == 1


@pytest.mark.parametrize("train", [1, 2])
def test_figures_are_saved_with_their_numbers(tmp_path, train):
    records = fake_records(train=train, unlearn=1, evaluate=1)
    rows = gap_data(records)
    paths = save_figure(gap_figure(records), tmp_path / "a.b", rows)
    assert [path.name for path in paths] == ["a.b.pdf", "a.b.png", "a.b.csv"]
    assert paths[0].read_bytes()[:5] == b"%PDF-"
    assert paths[1].read_bytes()[:4] == b"\x89PNG"
    with paths[2].open() as file:
        back = list(csv.DictReader(file))
    assert [float(row["gap"]) for row in back] == [row["gap"] for row in rows]


def test_no_records_no_error(tmp_path):
    figures = [gap_figure([]), price_figure([]), loss_histograms({}, "r", [])]
    for i, figure in enumerate(figures):
        save_figure(figure, tmp_path / str(i), [])


def test_an_original_that_equals_the_oracles_has_a_place_on_the_axis():
    """Where nothing was to be forgotten, its distance is 0: none on such an axis."""
    references = ("original", "oracle", "oracle vs oracle")
    same = [
        r._replace(value=90.0, oracle=90.0) if r.method in references else r
        for r in RECORDS
        if r.metric in ("accuracy", "parameter_change", "examples")
    ]
    priced = [r for r in RECORDS if r.metric == "forget_cpu_seconds"]
    rows = price_data([*same, *priced])
    assert next(r for r in rows if r["method"] == "original")["floors"] == 0
    low, _ = price_figure([*same, *priced]).axes[0].get_ylim()
    assert low > 0
