"""The study of attacks: what is enumerated, and what random words would do."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments import attacks
from experiments.attacks.cases import at_random, cases_of
from experiments.attacks.config import presets
from experiments.attacks.measure import ATTACKS, CLOSED, EXACT, NEW, RANDOM, SEARCH
from experiments.canvas import setting
from experiments.canvas.generators import oracle_names
from experiments.frame.study import Results
from unlearn_jax.results.rows import Row, Rows
from unlearn_jax.results.run import new_run

CONFIG = presets("any")["smoke"]


def test_random_words_bring_back_what_all_their_choices_do_on_the_mean():
    brought = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]], bool)
    for queries in (1, 2, 4, 5):
        choices = itertools.combinations(range(5), queries)
        each = [brought[:, list(chosen)].any(1).mean() for chosen in choices]
        assert at_random(brought, queries) == pytest.approx(np.mean(each))


def test_cases_are_behind_every_prefix_once():
    own = setting.build(CONFIG)
    start = np.zeros((4, 8, 8, 1), np.float32)
    for slots in (1, 2):
        config = dataclasses.replace(CONFIG, slots=slots)
        cases = cases_of(own._replace(config=config), start)
        assert len(cases.words) == 41**slots
        prompts = cases.prompts(cases.words)
        assert len(prompts) == 4 * len(cases.words)
        assert len({tuple(row) for row in prompts}) == len(prompts)
        places = cases.place(cases.words)
        np.testing.assert_array_equal(places, np.arange(len(cases.words)))
        words = own.wanted.grammar.words
        said = [[words[t] for t in row[:4]] for row in cases.sums[:, 0]]
        assert said == [
            ["a", "inverted", "digit", "three"],
            ["a", "inverted", "digit", "eight"],
            ["a", "plain", "digit", "eight"],
        ]


def test_the_table_tells_what_the_gradient_misses():
    names = ["original", *oracle_names(CONFIG.oracles), *CONFIG.methods]
    rows = []
    for name in names:
        for attack in ATTACKS:
            most = CONFIG.rounds if attack in (SEARCH, RANDOM, NEW) else 1
            for q in range(1, most + 1):
                value = {EXACT: 0.75, SEARCH: 0.25 * q, CLOSED: 1.0}.get(attack, 0.0)
                queries = 41 if attack == EXACT else q
                at = {"method": name, "attack": attack, "queries": queries}
                rows.append(Row("success", value, "1", at))
        rows.append(Row("prefixes", 0.1, "1", {"method": name}))
        at = {"method": name, "words": "seven"}
        rows.append(Row("best_prefix", 0.5, "1", at))
    run = new_run("attacks", "smoke", CONFIG, dataset="digits")
    (finding,) = attacks.show.show(CONFIG, Results(run, Rows(rows), {}))
    lines = {
        line.split("|")[1].strip(): line
        for line in finding.tables[0].to_markdown().splitlines()
        if "|" in line
    }
    cells = [cell.strip() for cell in lines["uce"].split("|")[2:-1]]
    assert cells[:4] == ["0.00", "0.500", "0.00", "0.750"]
    assert cells[7] == "0.250"
    assert cells[-1] == "seven 50%"
    assert "oracles, the mean" in lines
