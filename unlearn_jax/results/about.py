"""What every metric of the tables is: unit, aim, and a line of explanation."""

from typing import NamedTuple

from unlearn_jax.evaluation import METRICS

ARROWS = {"oracle": "→ oracle", "up": "↑", "down": "↓", "": ""}


class About(NamedTuple):
    """What a reader must know of a metric; ``direction`` is empty without an aim."""

    unit: str
    direction: str
    summary: str


MEASURED = {
    "relearn_steps": About(
        "steps",
        "oracle",
        "training steps on the forget set until it is learned again; few steps mean "
        "that it was hidden, not forgotten",
    ),
    "parameter_change": About(
        "1", "", "norm of the change of the parameters over their norm; 0 is no change"
    ),
    "chance": About("%", "", "share of the largest class: accuracy without any model"),
    "examples": About("1", "", "number of examples in the split"),
    "prepare_seconds": About(
        "s", "down", "time of what is done once, before any request is known"
    ),
    "forget_seconds": About("s", "down", "time of one request, compiled and warm"),
    "prepare_cpu_seconds": About(
        "s", "down", "processor time of preparing, warm, over that of one retraining"
    ),
    "forget_cpu_seconds": About(
        "s", "down", "processor time of one request, warm, over that of one retraining"
    ),
    "solver_failure": About(
        "1", "", "0 where a solver ended well, else the number of its reason"
    ),
    "solver_steps": About("steps", "", "iterations of the method's solver"),
    "solver_residual": About(
        "1", "", "what the solver left of the right-hand side, relative, as measured"
    ),
    "compile_seconds": About("s", "down", "time to compile, paid once per shape"),
    "peak_bytes": About(
        "bytes", "down", "arguments, outputs and temporaries of the compiled program"
    ),
}
"""Metrics that the experiments measure around the models' outputs."""


def about(metric: str) -> About:
    """Unit, direction and summary of any metric; empty for an unknown one."""
    if metric in METRICS:
        entry = METRICS[metric]
        return About(entry.unit, entry.direction, entry.summary)
    return MEASURED.get(metric, About("", "", "a metric of one's own"))
