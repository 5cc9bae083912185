"""A small ridge regression as state, and a stream of requests with every case."""

import jax.numpy as jnp
import numpy as np

from unlearn_jax.service.open import open_service
from unlearn_jax.solvers.refusal import RefusedError

FEATURES = 4
EVERY = 5
ROWS = np.arange(8.0).reshape(2, 4)


def start_state():
    """No class yet: the moment has no columns, an array of size zero."""
    gram = jnp.eye(FEATURES)
    return {"gram": gram, "moment": jnp.zeros((FEATURES, 0)), "count": np.float64(0.0)}


def apply(state, kind, arrays):
    """Rank-k updates in numpy, whose rounding depends on the order of requests."""
    gram, moment = np.asarray(state["gram"]), np.asarray(state["moment"])
    if kind == "class":
        wider = np.concatenate([moment, np.zeros((FEATURES, 1))], axis=1)
        return {**state, "moment": jnp.asarray(wider)}, {"classes": wider.shape[1]}
    sign = {"learn": 1.0, "forget": -1.0}[kind]
    rows, targets = arrays["rows"], arrays["targets"]
    gram = gram + sign * rows.T @ rows
    smallest = float(np.linalg.eigvalsh(gram)[0])
    if smallest < 0.5:
        raise RefusedError(f"not positive definite ({smallest:.3f})")
    moment = moment + sign * rows.T @ targets
    count = state["count"] + sign * len(rows)
    new = {"gram": jnp.asarray(gram), "moment": jnp.asarray(moment), "count": count}
    return new, {"smallest": smallest}


def requests(number, seed=0):
    """``(id, kind, arrays)``: learning, deletions, classes, refusals, repetitions."""
    draw = np.random.default_rng(seed)
    stream, learned, classes = [], [], 0
    for i in range(number):
        what = i % 8
        if what in (0, 5):
            classes += 1
            request = (f"c{i}", "class", {})
        elif what == 3 and learned:
            place, rows, targets = learned.pop(0)
            wide = np.zeros((len(rows), classes))
            wide[:, : targets.shape[1]] = targets
            request = (f"f{place}", "forget", {"rows": rows, "targets": wide})
        elif what == 6:  # never learned: refused
            rows = 9.0 * draw.normal(size=(2, FEATURES))
            arrays = {"rows": rows, "targets": np.zeros((2, classes))}
            request = (f"x{i}", "forget", arrays)
        elif what == 7:
            request = stream[int(draw.integers(len(stream)))]
        else:
            rows = draw.normal(size=(int(draw.integers(1, 6)), FEATURES))
            targets = draw.normal(size=(len(rows), classes))
            learned.append((i, rows, targets))
            request = (f"l{i}", "learn", {"rows": rows, "targets": targets})
        stream.append(request)
    return stream


def open_toy(folder, **options):
    settings = {"snapshot_every": EVERY, "snapshot_after": ()} | options
    return open_service(folder, start_state(), settings.pop("apply", apply), **settings)


def bits(state):
    """A state as something that compares bit for bit."""
    return {
        name: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        for name, leaf in state.items()
    }


def told(entries):
    """What the log must tell whatever happened: everything but times."""
    return [e._replace(accepted="", done="", cleared="", digest="") for e in entries]


def undisturbed(folder, stream):
    """States after every number of requests, by bits, and the entries."""
    states = {}
    with open_toy(folder) as service:
        states[0] = bits(service.state)
        for request in stream:
            service.submit(*request)
            states[len(service.entries)] = bits(service.state)
    return states, told(service.entries)


def learn(name, rows=ROWS):
    return name, "learn", {"rows": rows, "targets": np.zeros((len(rows), 0))}


def tree(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}
