"""Five small nets, and their curvature written out from dense derivatives."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.data.batch import from_arrays, take
from unlearn_jax.models import MODELS
from unlearn_jax.train.loss import cross_entropy, sequence_nll
from unlearn_jax.train.objective import Objective, bind

L2 = 0.3
COUNT = 9
ABSENT = (0, 4, 8)
NAMES = ("softmax", "mlp", "norm", "cnn", "sequence")


class Problem:
    """An objective, where it is differentiated, and examples some of which are NaN."""

    def __init__(self, objective, params, inputs, targets):
        weights = np.random.default_rng(5).uniform(0.2, 2.0, COUNT)
        weights[list(ABSENT)] = 0
        self.objective, self.params = objective, params
        self.clean = from_arrays(inputs, targets, weights)
        if inputs.dtype.kind == "f":
            inputs = inputs.copy()
            inputs[list(ABSENT)] = np.nan
        self.data = from_arrays(inputs, targets, weights)
        self.present = take(self.clean, np.flatnonzero(weights))
        self.shares = self.present.weights / self.present.weights.sum()
        flat, self.unravel = ravel_pytree(params)
        self.flat, self.size = np.asarray(flat), flat.size

    def outputs(self, flat, inputs):
        return self.objective.predict(self.unravel(flat), inputs)

    def vector(self, seed=0):
        return self.unravel(np.random.default_rng(seed).standard_normal(self.size))


@functools.cache
def problem(name):
    if name == "sequence":
        return _sequence()
    random = np.random.default_rng(1)
    if name == "cnn":
        model = MODELS["cnn"]((4, 4, 1), 3, width=1, hidden=3, dtype=jnp.float64)
        inputs = random.standard_normal((COUNT, 4, 4, 1))
    else:
        model = tiny.learner(name).model
        inputs = tiny.examples(count=COUNT).inputs
    init = model.init(jax.random.key(3))
    # Any running averages but zero and one, where batch-norm does nothing; and biases
    # off zero, away from the kink that an empty image would sit on.
    stats = jax.tree.map(lambda leaf: leaf + 0.3, init.stats)
    params = jax.tree.map(lambda leaf: leaf + 0.1, init.params)
    return Problem(
        bind(model, stats, cross_entropy, L2), params, inputs, np.arange(COUNT) % 3
    )


def _sequence(words=3, width=3, length=3):
    """One causal attention head over embedded tokens; some targets are ignored."""
    random = np.random.default_rng(2)
    shapes = {
        "embed": (words, width),
        "place": (length, width),
        "query": (width, width),
        "key": (width, width),
        "value": (width, width),
        "head": (width, words),
    }
    params = {k: jnp.asarray(random.standard_normal(s)) for k, s in shapes.items()}

    def predict(p, tokens):
        x = p["embed"][tokens] + p["place"][None]
        scores = jnp.einsum("nid,njd->nij", x @ p["query"], x @ p["key"])
        past = jnp.tril(jnp.ones((length, length), bool))
        attention = jax.nn.softmax(jnp.where(past[None], scores, -1e9), axis=-1)
        return jnp.tanh(x + attention @ (x @ p["value"])) @ p["head"]

    tokens = random.integers(0, words, (COUNT, length))
    targets = random.integers(0, words, (COUNT, length))
    targets[2, 1] = targets[3, 0] = targets[3, 2] = -1
    targets[5] = -1  # an example without any token to learn from
    return Problem(Objective(predict, sequence_nll, L2), params, tokens, targets)


@functools.cache
def dense_hessian(name):
    p = problem(name)

    def risk(flat, batch):
        return p.objective.risk(p.unravel(flat), batch)

    return np.asarray(tiny.quick_jit(jax.hessian(risk))(p.flat, p.present))


@functools.cache
def outputs_and_jacobian(name):
    """(n, k) and (n, k, p) of the present examples, all outputs of one in one axis."""
    p = problem(name)
    both = tiny.quick_jit(lambda f, x: (p.outputs(f, x), jax.jacfwd(p.outputs)(f, x)))
    outputs, jacobian = both(p.flat, p.present.inputs)
    n = len(p.shares)
    return np.asarray(outputs), np.asarray(jacobian).reshape(n, -1, p.size)


def assemble(name, middle):
    """Σₙ wₙ Jₙᵀ Cₙ Jₙ / Σₙ wₙ from matrices (n, k, k)."""
    p = problem(name)
    _, jacobian = outputs_and_jacobian(name)
    return np.einsum("n,nap,nab,nbq->pq", p.shares, jacobian, middle, jacobian)


def loss_hessians(name, loss, targets):
    """∂²loss/∂outputs² of each present example by itself."""
    outputs, _ = outputs_and_jacobian(name)

    def one(o, y):
        return jax.hessian(lambda o: loss(o[None], y[None])[0])(o)

    size = outputs[0].size
    found = tiny.quick_jit(jax.vmap(one))(outputs, targets)
    return np.asarray(found).reshape(-1, size, size)


def example_gradients(name):
    """(n, p) gradients of the losses of the present examples."""
    p = problem(name)

    def losses(flat, batch):
        return p.objective.example_losses(p.unravel(flat), batch)

    return np.asarray(tiny.quick_jit(jax.jacfwd(losses))(p.flat, p.present))


def label_covariances(name):
    """T E[(∂ℓ/∂outputs)(∂ℓ/∂outputs)ᵀ] by listing every label, or row of T labels."""
    p = problem(name)
    outputs, _ = outputs_and_jacobian(name)
    targets = np.asarray(p.present.targets)
    if outputs.ndim == 2:
        outputs, targets = outputs[:, None], targets[:, None]
    found = []
    for o, y in zip(outputs, targets, strict=True):
        odds = np.exp(o) / np.exp(o).sum(-1, keepdims=True)
        kept = np.flatnonzero(y >= 0)
        total = np.zeros((o.size, o.size))
        for labels in itertools.product(range(o.shape[1]), repeat=len(kept)):
            slope = np.zeros(o.shape)
            slope[kept] = odds[kept]
            slope[kept, labels] -= 1
            slope = slope.ravel() / max(len(kept), 1)
            total += np.prod(odds[kept, labels]) * np.outer(slope, slope)
        found.append(max(len(kept), 1) * total)
    return np.stack(found)


def dot_generals(closed):
    """How many matrix products a jaxpr holds, those of inner jaxprs too."""
    return str(closed).count("dot_general[")
