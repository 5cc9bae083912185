"""Every approximation of curvature against the matrix written out.

Question: how wrong is each diagonal, each product and each inverse product on a small
trained net, what does it cost, and does the error matter to the unlearned model?
Command: ``python -m experiments.curvature_fidelity`` (digits, minutes on two CPU
cores); ``--scale smoke`` ends within a minute.
Expect: on the mlp exact diagonals and products agree to float32 rounding (1e-6), on the
cnn to 1e-3, since rounding takes a few examples over a kink; random estimates
fall as one over the square root of the work; EK-FAC is nearer than K-FAC, and both are
nearer than the diagonal. On the mlp influence with an accurate inverse comes nearer to
the oracle than doing nothing, which counts as 1; on the cnn, which retraining leads
elsewhere, it does not.
"""

from collections.abc import Sequence
from typing import Any

import jax

from experiments._curvatures import Effort
from experiments._fidelity import Config, one_net
from experiments._fidelity_tables import draw, tables_of
from experiments._study import Findings, Note, parse, study
from experiments.frame.command import main
from experiments.frame.nets import NETS, Net, build_net
from experiments.frame.problem import Data, load
from unlearn_jax.results.run import Run

PRESETS = {
    "small": Config(),
    "smoke": Config(
        scale="smoke",
        data=Data(limit=400),
        nets=("mlp",),
        width=8,
        epochs=1000,
        forget=20,
        vectors=3,
        effort=Effort((64, 64), (4, 4), (50, 50), 20, 128),
    ),
    "paper": Config(scale="paper", width=32, epochs=4000, vectors=20),
}


def build(config: Config) -> tuple[str, list[Net]]:
    """Load and check; what is refused is refused here.

    Raises:
        ValueError: names or numbers that make no sense.
    """
    if not config.nets:
        raise ValueError(f"nets is empty; choose from {', '.join(NETS)}")
    if not (config.damping > 0 and config.l2 >= 0):
        raise ValueError(
            f"expected a positive damping and l2 not negative, got {config.damping} "
            f"and {config.l2}"
        )
    dataset = load(config.data)
    n = len(dataset.splits.train.targets)
    if not 1 <= config.forget < n or config.vectors < 1:
        raise ValueError(
            f"{dataset.title} has {n} training examples; forget is {config.forget} "
            f"(1 to {n - 1}) and vectors {config.vectors} (at least 1)"
        )
    effort = config.effort
    if (
        min(*effort.probes, *effort.samples, *effort.steps, effort.rank) < 1
        or min(effort.probes) < 2
    ):
        raise ValueError(f"every effort must be at least 1, and probes 2; got {effort}")
    nets = [
        build_net(
            name,
            dataset,
            width=config.width,
            epochs=config.epochs,
            l2=config.l2,
            dense=True,
        )
        for name in config.nets
    ]
    return dataset.title, nets


def command(arguments: Sequence[str]) -> int:
    """Parse, train, compare, report."""
    jax.config.update("jax_enable_x64", True)
    prog = "python -m experiments.curvature_fidelity"
    config = parse(Config, PRESETS, arguments, prog, __doc__)
    title, nets = build(config)
    return study(
        "curvature_fidelity", config, title, lambda: work(config, nets), model="mlp"
    )


def work(config: Config, nets: Sequence[Net]) -> Any:
    """Everything for each net."""
    found = {net.name: one_net(config, net) for net in nets}
    notes = [
        Note(
            row["approximation"],
            metric,
            value,
            "s" if metric.endswith("seconds") else "1",
            request=row["kind"],
            model=name,
        )
        for name, rows in found.items()
        for row in rows
        for metric, value in row.items()
        if isinstance(value, float)
    ]

    def show(run: Run) -> Findings:
        tables = [
            made for name, rows in found.items() for made in tables_of(name, rows, run)
        ]
        drawings = [draw(name, rows) for name, rows in found.items()]
        return Findings([], tables, drawings)

    return notes, show


if __name__ == "__main__":
    main(command)
