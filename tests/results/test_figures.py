"""The figures of the studies: no text lies over another, none leaves the page."""

import itertools
import math

import pytest
from results.overlaps import overlaps

from unlearn_jax.results.plot_attribution import attribution_figure
from unlearn_jax.results.plot_continual import continual_figure
from unlearn_jax.results.plot_corrective import corrective_figure
from unlearn_jax.results.plot_curvature import error_figure
from unlearn_jax.results.plot_dmm import dmm_figure
from unlearn_jax.results.plot_exactness import exactness_figure
from unlearn_jax.results.plot_language import language_figure
from unlearn_jax.results.plot_state_privacy import state_figure


def grid(constant, **axes):
    """A row for every combination of the axes' values."""
    return [
        dict(zip(axes, values, strict=True)) | constant
        for values in itertools.product(*axes.values())
    ]


def corrective():
    methods = ["retrain", "finetune", "gradient_ascent", "scrub", "ssd", "mine"]
    axes = {"kind": ["backdoor", "labels swapped"], "split": ["corrected", "retained"]}
    value = {"value": 90.0, "stderr": 0.1}
    before = grid({"share": 0.0, **value}, **axes, method=["original"])
    return corrective_figure(
        before + grid(value, **axes, method=methods, share=[0.1, 0.5, 1.0])
    )


def continual():
    rows = grid(
        {"kind": "learn", "value": 2.0},
        panel=["accuracy (%)", "seconds (logarithmic)"],
        method=["ACU", "ACU, inverse", "SGD retrain", "one of my own"],
        position=list(range(12)),
    )
    return continual_figure([r | {"event": f"class {r['position']}"} for r in rows])


def exactness():
    return exactness_figure(
        grid(
            {"value": 1e-9},
            panel=["10 features", "500 features"],
            quantity=["head", "predictions"],
            form=["sums", "sums and inverse", "inverse", "fresh Cholesky", "fresh QR"],
            kind=["checked", "watched", "refused"],
            position=[1, 10, 100],
        )
    )


def state():
    return state_figure(
        grid(
            {"panel": "membership", "value": 0.6, "error": 0.1},
            group=["within", "to be deleted", "deleted"],
            score=["residual", "leverage"],
            x=[0.5, 1.0, 2.0],
        )
    )


def attribution():
    names = ["influence", "trak", "source", "influence: inverse=ekfac", "new", "random"]
    scores = [
        {"panel": "scores", "attribution": name, "seconds": 0.3 + 0.1 * i, "lds": 0.1}
        | {"stderr": 0.02, "attainable": 0.5, "attainable_stderr": 0.1}
        for i, name in enumerate(names)
    ]
    example = {"panel": "example", "attribution": "trak", "predicted": 1.0}
    removals = grid({"panel": "removals", "retrained": 1.0}, attribution=names * 2)
    return attribution_figure([*scores, example | {"retrained": 2.0}, *removals])


def dmm():
    families = ["finetune", "oracle matching", "dmm: trak", "direct: trak", "scrub"]
    families += ["unrolled_removal", "original", "oracle vs oracle"]
    rows = grid(
        {"request": "random:100", "split": "forget", "setting": "one"},
        family=families,
        p95=[3.0],
    )
    more = {"gradients": 900.0, "chosen": True, "floor": 1.2}
    return dmm_figure([row | more for row in rows])


def errors():
    rows = grid(
        {},
        panel=["product", "inverse"],
        family=["CG", "K-FAC", "Hutchinson", "diagonal", "low rank"],
        number=list(range(5)),
    )
    return error_figure(
        [
            {
                "panel": row["panel"],
                "approximation": f"{row['family']}, {row['number']}",
                "seconds": 1e-3 * 1.4 ** row["number"],
                "error": 0.1 / (1 + row["number"]),
            }
            for row in rows
        ]
    )


def language():
    names = ("retain_newton", "signs", "npo", "identity", "sophia", "graddiff")
    orders = ("second", "signs", "first", "control", "second", "first")
    rows = [
        {"choice": choice, "method": name, "order": order, "forget": 1.0 + 0.1 * at}
        | {"retain": 0.1 * (1 + at), "forget_error": error, "retain_error": error}
        for choice, error in (("budget", 0.3), ("unseen", math.nan))
        for at, (name, order) in enumerate(zip(names, orders, strict=True))
    ]
    floor = {"method": "oracle vs oracle", "order": "floor", "forget": 1e-3}
    floors = [
        {**row, **floor, "retain": 0.01} for row in rows if row["method"] == "npo"
    ]
    return language_figure(rows + floors, split="the forgotten", kept="the retained")


FIGURES = (corrective, continual, exactness, state, attribution, dmm, errors, language)


@pytest.mark.parametrize("figure", FIGURES)
def test_no_text_lies_over_another(figure):
    assert overlaps(figure()) == []
