import math

import pytest
from results.fake_records import METHODS, fake_records, fake_run

from unlearn_jax.evaluation import METRICS
from unlearn_jax.results.about import MEASURED, about
from unlearn_jax.results.checks import SOLVER_NOTE
from unlearn_jax.results.columns import CAN_ONE_TELL, WHAT_IT_COSTS, WHAT_IT_DOES
from unlearn_jax.results.comparison import answer, by_request, comparison_tables
from unlearn_jax.results.summary import summarise
from unlearn_jax.solvers.solution import CONVERGED, OUT_OF_STEPS

RECORDS = fake_records()
DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def tables(records):
    return {table.name: table for table in comparison_tables(records, fake_run())}


def cell(table, method, title):
    column = next(i for i, text in enumerate(table.header) if text.startswith(title))
    row = next(row for row in table.rows if row[0].text == method)
    return row[column]


def change(method, metric, **fields):
    return [
        r._replace(**fields) if (r.method, r.metric) == (method, metric) else r
        for r in RECORDS
    ]


def test_every_column_is_explained():
    for column in (*WHAT_IT_DOES, *CAN_ONE_TELL, *WHAT_IT_COSTS):
        assert column.metric in METRICS or column.metric in MEASURED
        assert about(column.metric).summary
    assert about("no such metric").direction == ""


def test_three_tables_with_the_nearest_method_first_and_no_empty_cell():
    found = tables(RECORDS)
    assert list(found) == ["what it does", "can one tell", "what it costs"]
    own = {name for name in METHODS if name not in ("original", "oracle")}
    for table in found.values():
        names = [row[0].text for row in table.rows]
        assert names[0] == "original"
        assert names[-2:] == ["oracle", "oracle vs oracle"]
        assert set(names[1:-2]) == own
        assert names[1] == "newton"
        assert set(names[-4:-2]) == {"gradient_ascent", "lfssd"}  # of no use
        assert all(len(row) == len(table.header) for row in table.rows)
        assert all(c.text for row in table.rows for c in row)
        assert not table.failures


def test_the_caption_says_scale_data_model_request_seeds_and_run():
    for table in tables(RECORDS).values():
        for part in (
            "Scale: smoke",
            "Digits (8x8, scikit-learn)",
            "Model: mlp",
            "Request: random 5%",
            f"5 train {TIMES} 2 unlearn {TIMES} 2 evaluate",
            "20260102T030405-ab12cd",
        ):
            assert part in table.caption


def test_every_column_has_a_footnote():
    for table in tables(RECORDS).values():
        notes = "\n".join(table.footnotes)
        for title in table.header[1:]:
            name = title.split(" (")[0].split(" AUC")[0].removesuffix(" steps →")
            assert name.rstrip(" →↑↓") in notes


def test_words_judge_each_method():
    table = tables(RECORDS)["what it does"]
    said = {row[0].text: row[-1].text for row in table.rows}
    assert said["gradient_ascent"].startswith("destroyed, outside the floor, ")
    assert said["lfssd"].startswith("changed nothing, outside the floor, ")
    assert said["newton"].startswith("inside the floor, 0.")
    assert said["original"].startswith("outside the floor, ")
    assert said["original"].endswith(")")
    assert all(text.count("floors (") <= 1 for text in said.values())
    assert said["oracle"] == "the reference"
    assert said["oracle vs oracle"] == "the floor"


def test_a_clear_leader_is_bold_and_a_narrow_one_is_not():
    found = tables(RECORDS)
    assert cell(found["can one tell"], "newton", "loss attack").bold
    assert cell(found["what it costs"], "ssd", "forget").bold
    noisy = fake_records(methods={k: METHODS[k] for k in ("ssd", "assd", "oracle")})
    same = [
        r._replace(value=1.0 + 0.1 * r.train_seed + 0.05 * (r.method == "ssd"))
        if r.metric == "forget_seconds"
        else r
        for r in noisy
    ]
    costs = tables(same)["what it costs"]
    assert not any(cell(costs, name, "forget").bold for name in ("ssd", "assd"))
    assert not cell(found["what it does"], "newton", "accuracy").bold


def test_what_changed_nothing_or_was_destroyed_never_leads():
    cheap = change("lfssd", "forget_seconds", value=1e-3)
    costs = tables(cheap)["what it costs"]
    assert not cell(costs, "lfssd", "forget").bold
    assert cell(costs, "ssd", "forget").bold


def test_one_training_seed_says_so_and_makes_nothing_bold():
    found = tables(fake_records(train=1))
    assert cell(found["what it does"], "ssd", "accuracy test").text.endswith("± ?")
    assert cell(found["what it does"], "ssd", "gap test").text.endswith("[?, ?]")
    assert cell(found["what it does"], "ssd", "check").text == "undecided"
    assert not any(c.bold for t in found.values() for row in t.rows for c in row)


def test_a_failed_cell_reads_its_reason_and_is_listed():
    broken = change("scrub", "mia_loss", value=None, failure="outputs are not finite")
    found = tables(broken)
    assert cell(found["can one tell"], "scrub", "loss attack").text == (
        "failed: outputs are not finite"
    )
    assert found["can one tell"].failures == (
        "scrub, loss attack: outputs are not finite",
    )
    assert cell(found["what it does"], "scrub", "check").text.startswith("failed")


def test_what_was_not_recorded_is_a_failure_but_nothing_to_prepare_is_not():
    lost = [r for r in RECORDS if (r.method, r.metric) != ("ssd", "tug_of_war")]
    found = tables(lost)
    assert cell(found["what it does"], "ssd", "tug-of-war").text == (
        "failed: not recorded"
    )
    assert cell(found["what it costs"], "newton", "prepare").text == DASH
    assert cell(found["what it costs"], "original", "forget").text == DASH
    no_change = [r for r in RECORDS if r.metric != "parameter_change"]
    assert (
        "no parameter change"
        in cell(tables(no_change)["what it does"], "ssd", "check").text
    )


def test_a_metric_that_always_fails_keeps_its_column():
    broken = [
        r._replace(split="", value=None, oracle=None, failure="too few references")
        if r.metric == "mia_lira"
        else r
        for r in RECORDS
    ]
    text = cell(tables(broken)["can one tell"], "ssd", "likelihood-ratio").text
    assert text.startswith("failed: too few references")


def test_a_number_that_is_not_finite_is_shown_and_destroys():
    found = tables(change("ssd", "accuracy", value=math.nan))["what it does"]
    assert cell(found, "ssd", "accuracy test").text == "nan"
    assert cell(found, "ssd", "gap test").text == "failed: not finite"
    assert cell(found, "ssd", "check").text == "destroyed, outside the floor"


def test_the_reader_is_warned_when_doing_nothing_would_pass():
    same = {"original": ((0.0, 0.0, 0.0), 0.5, None), "oracle": METHODS["oracle"]}
    table = tables(fake_records(methods=same | {"ssd": METHODS["ssd"]}))["what it does"]
    assert cell(table, "original", "check").text.startswith("inside the floor")
    assert cell(table, "ssd", "check").text.startswith(("outside", "undecided"))
    assert table.footnotes[0].startswith("Mind: the original itself")


def test_regression_has_rmse_in_its_own_unit():
    records = [
        r._replace(metric="rmse", unit="targets")
        for r in RECORDS
        if r.metric == "accuracy"
    ] + [r for r in RECORDS if r.metric in ("parameter_change", "mia_loss")]
    table = tables(records)["what it does"]
    assert "rmse forget (targets) →" in table.header
    assert "gap forget (targets) → 0" in table.header


def test_prices_are_in_units_of_one_retraining_and_the_answer_names_them():
    table = tables(RECORDS)["what it costs"]
    summaries = summarise(RECORDS)
    whole = summaries["oracle", "forget_cpu_seconds", "all"].mean
    for method, metric, title in (
        ("newton", "forget_cpu_seconds", "request ÷ retraining"),
        ("ssd", "prepare_cpu_seconds", "prepare ÷ retraining"),
    ):
        told = float(cell(table, method, title).text)
        assert told == pytest.approx(
            summaries[method, metric, "all"].mean / whole, rel=0.005
        )
    assert cell(table, "oracle", "request ÷ retraining").text == "1.00"
    said = answer(RECORDS)
    assert said.startswith("Nearest to retraining: newton (0.")
    assert "times its price" in said
    assert "inside the floor: newton" in said


def test_with_too_few_seeds_the_answer_does_not_decide():
    said = answer(fake_records(train=2))
    assert said.endswith("who is inside the floor is undecided.")


def test_two_requests_are_two_groups():
    both = RECORDS + fake_records(request="class:3")
    assert [place[2] for place in by_request(both)] == ["random 5%", "class:3"]
    with pytest.raises(ValueError, match="one request, got 2"):
        comparison_tables(both, fake_run())
    with pytest.raises(ValueError, match="got 0"):
        comparison_tables([], fake_run())


def solver_records(codes):
    """Records of newton's solver: a code for each training seed."""
    place = next(r for r in RECORDS if r.method == "newton")._replace(split="")
    return [
        place._replace(metric=name, value=value, oracle=None, unit=unit, train_seed=i)
        for i, code in enumerate(codes)
        for name, value, unit in (
            ("solver_failure", float(code), "1"),
            ("solver_steps", 10.0 + i, "steps"),
            ("solver_residual", 0.02, "1"),
        )
    ]


@pytest.mark.parametrize(
    ("codes", "word"),
    [
        ([CONVERGED] * 5, ""),
        ([OUT_OF_STEPS] * 5, "solver out of steps"),
        ([CONVERGED, OUT_OF_STEPS] + [CONVERGED] * 3, "solver failed on some seeds"),
    ],
)
def test_a_removal_whose_solver_failed_is_marked(codes, word):
    found = tables([*RECORDS, *solver_records(codes)])
    said = cell(found["what it does"], "newton", "check").text
    assert ("solver" in said) == bool(word)
    assert word in said
    noted = any(note == SOLVER_NOTE for note in found["what it does"].footnotes)
    assert noted == bool(word)
    assert cell(found["what it costs"], "newton", "solver").text.startswith("12.0")
    assert cell(found["what it costs"], "newton", "residual").text == "0.0200 ± 0"
    assert cell(found["what it costs"], "ssd", "residual").text == DASH
    assert not any(table.failures for table in found.values())
