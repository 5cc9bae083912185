"""Members by kind of example, and the score against the members of a fit."""

from experiments.datamodels.config import Config
from experiments.frame.findings import Drawing, Finding, about, table
from experiments.frame.study import Results
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.plot_datamodels import score_figure
from unlearn_jax.results.table import Table
from unlearn_jax.storage.write import readable_bytes


def show(config: Config, results: Results) -> list[Finding]:
    """Two tables, one figure."""
    rows = results.rows
    scores = [
        {
            "members": count,
            "score": rows.value("lds", members=count),
            "stderr": rows.value("lds_stderr", members=count),
        }
        for count in rows.places("members")
    ]
    caption = (
        f"Linear datamodelling score on {config.held_out} further members against the "
        f"members that the datamodel is fitted to; {config.queries} test margins, ± "
        "bootstrap standard error."
    )
    drawing = Drawing("datamodels", score_figure(scores), scores, caption)
    lines = [
        [str(s["members"]), mean_and_error(s["score"], s["stderr"])] for s in scores
    ]
    notes = (
        f"Ridge regression of {config.queries} test margins on the masks, l2 by leave "
        f"one out; judged on {config.held_out} members that no fit has seen.",
        "± bootstrap standard error over queries and members. Each judge is one "
        "training run: its own randomness bounds the score from above.",
    )
    caption = f"Datamodels. {about(results.run)}"
    second = table("score", caption, ("members fitted to", "LDS ↑"), lines, notes)
    return [Finding([_members(results), second], [drawing])]


def _members(results: Results) -> Table:
    rows = results.rows
    lines = []
    for kind in rows.places("split"):
        rate, spread = (
            100 * rows.value(name, split=kind)
            for name in ("accuracy", "accuracy_spread")
        )
        margins = [rows.value(n, split=kind) for n in ("margin", "margin_spread")]
        lines.append([kind, f"{rate:.2f} ± {spread:.2f}", *margins])
    header = ("examples", "accuracy (%)", "margin (nats)", "spread of a margin (nats)")
    names = ("members", "subset", "examples", "points", "outputs_bytes")
    members, subset, examples, points, size = (int(rows.value(n)) for n in names)
    notes = (
        f"{members} members, each on {subset} of {examples} training examples; "
        f"{1e3 * rows.value('train_seconds'):.3g} ms of training each (compilation "
        f"left out); outputs on {points} points take {readable_bytes(size)}.",
        "Accuracy: ± standard deviation over members. Spread: standard deviation over "
        "members of one example's margin, mean over examples.",
    )
    caption = f"Members of the ensemble. {about(results.run)}"
    return table("members", caption, header, lines, notes)
