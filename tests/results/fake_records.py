"""Records as a real comparison writes them, drawn from a seed."""

import numpy as np

from unlearn_jax.results.record import Record
from unlearn_jax.results.rows import Row
from unlearn_jax.results.run import Run

ACCURACY = {"retain": (99.4, 0.25), "forget": (91.0, 2.0), "test": (93.1, 0.6)}
METHODS = {
    # name: (shift on retain, forget, test; attack AUC; seconds)
    "original": ((0.4, 8.6, 0.2), 0.64, None),
    "finetune": ((0.1, 4.0, 0.1), 0.57, 0.8),
    "gradient_ascent": ((-83.0, -84.0, -82.0), 0.51, 0.11),
    "random_labels": ((-2.0, -11.0, -2.5), 0.38, 0.9),
    "scrub": ((0.2, 3.1, -0.4), 0.56, 1.4),
    "ssd": ((-1.2, -3.0, -1.0), 0.52, 0.05),
    "assd": ((-0.9, -2.2, -0.8), 0.53, 0.06),
    "newton": ((0.02, 0.1, -0.05), 0.502, 0.31),
    "lfssd": ((0.4, 8.6, 0.2), 0.64, 0.04),
    "oracle": ((0.0, 0.0, 0.0), 0.50, 6.2),
}
COSTS = (
    "prepare_seconds",
    "forget_seconds",
    "prepare_cpu_seconds",
    "forget_cpu_seconds",
    "compile_seconds",
    "peak_bytes",
)


def fake_run(**changes):
    run = Run(
        id="20260102T030405-ab12cd",
        experiment="compare",
        scale="smoke",
        config={"data": "digits", "model": "mlp", "seeds": [0, 1, 2, 3, 4]},
        config_hash="ab12cd",
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        started="2026-01-02T03:04:05+00:00",
        seconds=41.5,
        python="3.11.7",
        jax="0.10.2",
        flax="0.12.8",
        device="CPU (x86_64, 2 cores)",
        x64=False,
        dataset="Digits (8x8, scikit-learn)",
        command="python -m experiments.compare --scale smoke",
        inputs={"data": "0f" * 16},
        records=None,
    )
    return run._replace(**changes)


def fake_records(
    seed=0, train=5, unlearn=2, evaluate=2, request="random 5%", methods=METHODS
):
    rng = np.random.default_rng(seed)
    accuracy = {
        split: centre + spread * rng.normal(size=train)
        for split, (centre, spread) in ACCURACY.items()
    }
    attack = 0.5 + 0.01 * rng.normal(size=train)
    records = []

    def add(method, i, j, k, metric, split, value, oracle=None, unit="1", failure=""):
        value = None if value is None else float(value)
        oracle = None if oracle is None else float(oracle)
        place = ("20260102T030405-ab12cd", "Digits (8x8, scikit-learn)", "mlp")
        seeds = (i, j, k)
        numbers = (metric, split, value, oracle, unit, failure)
        records.append(Record(*place, method, request, *seeds, *numbers))

    for method, (shifts, auc, seconds) in methods.items():
        reference = method in ("original", "oracle")
        for i in range(train):
            for j in range(1 if reference else unlearn):
                noise = 0.0 if method == "oracle" else 0.15
                for shift, split in zip(shifts, ACCURACY, strict=True):
                    for k in range(evaluate):
                        own = accuracy[split][i]
                        value = own + shift + noise * rng.normal()
                        add(method, i, j, k, "accuracy", split, value, own, "%")
                for k in range(evaluate):
                    tell = attack[i] + (auc - 0.5) + 0.01 * rng.normal()
                    same = attack[i] if method == "oracle" else tell
                    for name in ("mia_loss", "mia_logistic_loss", "mia_lira"):
                        add(method, i, j, k, name, "forget", same, attack[i])
                    war = 1 - abs(shifts[1] / 100) - abs(rng.normal() / 100)
                    add(method, i, j, k, "tug_of_war", "all", war)
                    for split in ("forget", "test"):
                        agree = 97 - abs(shifts[1]) + rng.normal()
                        add(method, i, j, k, "agreement", split, agree, unit="%")
                steps = 3 + 20 * (0.64 - auc) / 0.14 + rng.normal()
                add(method, i, j, 0, "relearn_steps", "forget", steps, 24.0, "steps")
                still = method in ("lfssd", "original")
                if method != "oracle":
                    moved = 0.0 if still else abs(rng.normal())
                    add(method, i, j, 0, "parameter_change", "all", moved)
                if seconds is None:
                    continue
                for name in COSTS:
                    if name.startswith("prepare") and "ss" not in method:
                        continue
                    scale = {"compile_seconds": 1.9, "peak_bytes": 7.3e7}.get(
                        name, seconds
                    )
                    unit = "bytes" if name == "peak_bytes" else "s"
                    value = scale * np.exp(0.05 * rng.normal())
                    add(method, i, j, 0, name, "all", value, unit=unit)
    add("original", 0, 0, 0, "chance", "test", 10.3, unit="%")
    add("original", 0, 0, 0, "examples", "test", 360.0)
    for i in range(train):
        for j in range(i + 1, train):
            for split in ACCURACY:
                pair = accuracy[split][[i, j]]
                name = "oracle vs oracle"
                add(name, i, j, 0, "accuracy", split, *pair, unit="%")
                if split != "retain":
                    agree = 95 + rng.normal()
                    add(name, i, j, 0, "agreement", split, agree, unit="%")
            add(name, i, j, 0, "tug_of_war", "all", 0.97 + 0.01 * rng.normal())
            for attacker in ("mia_loss", "mia_logistic_loss", "mia_lira"):
                add(name, i, j, 0, attacker, "forget", attack[i], attack[j])
    return records


def rows_of(records):
    """The rows that a comparison measures, for the records that are made of them."""
    rows = []
    for r in records:
        names = ("request", "method", "train_seed", "unlearn_seed", "evaluate_seed")
        at = {name: getattr(r, name) for name in (*names, "split")}
        pair = {"side": "first"} if r.method == "oracle vs oracle" else {}
        rows.append(Row(r.metric, r.value, r.unit, at | pair, r.failure))
        if pair:
            second = at | {"side": "second"}
            rows.append(Row(r.metric, r.oracle, r.unit, second, r.failure))
    return rows


def fake_losses(seed=0, request="random 5%", methods=METHODS, seeds=5, n=90):
    rng = np.random.default_rng(seed)
    arrays = {}
    for method, (shifts, _, _) in methods.items():
        for group in ("forget", "unseen"):
            centre = -3.0 - (0.3 * shifts[1] if group == "forget" else 0.0)
            losses = np.exp(centre + 1.8 * rng.normal(size=(seeds, n)))
            arrays[f"losses/{request}/{method}/{group}"] = losses
    return arrays
