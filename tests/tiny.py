"""Learners so small that a test spends its time compiling, never computing."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.models import from_nnx, mlp
from unlearn_jax.models.model import Model
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Variables

COUNT, FEATURES, CLASSES, WIDTH = 48, 5, 3, 6


def quick_jit(function):
    """``jax.jit`` that optimises little: half the time goes, the results stay."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function, compiler_options=options)


def full_jit(function):
    """``jax.jit`` that optimises in full, in a file that does not."""
    options = {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    }
    return jax.jit(function, compiler_options=options)


def flat(params):
    """All numbers of a tree in one row."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def unlearned(method, original, request):
    """What a method that is prepared on the request's retain set leaves."""

    def both(original):
        state = method.prepare(jax.random.key(0), original, request.retain)
        return method.forget(jax.random.key(3), state, original, request)[0]

    return quick_jit(both)(original)


def examples(dtype=np.float64, count=COUNT, seed=0):
    """Three overlapping clouds of points, in numpy."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = 1.5 * random.normal(size=(CLASSES, FEATURES))
    inputs = centres[labels] + random.normal(size=(count, FEATURES))
    return from_arrays(inputs.astype(dtype), labels)


def numeric(data):
    """The same examples with numbers to predict: one-hot labels."""
    targets = np.eye(CLASSES, dtype=data.weights.dtype)[data.targets]
    return data._replace(targets=targets)


def suited(entry, net, train, request):
    """Learner, examples and request for what a method can unlearn."""
    if "classification" in entry.tasks:
        return learner(net), train, request
    numbers = request._replace(
        forget=numeric(request.forget), retain=numeric(request.retain)
    )
    return learner(net, loss=squared_error), numeric(train), numbers


class Stage(nnx.Module):
    def __init__(self, dtype, rngs):
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.linear = nnx.Linear(WIDTH, WIDTH, **kind)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, **kind)
        self.norm.mean = nnx.BatchStat(jnp.zeros(WIDTH, dtype))
        self.norm.var = nnx.BatchStat(jnp.ones(WIDTH, dtype))

    def __call__(self, values):
        return jnp.tanh(self.norm(self.linear(values)))


class StagedNet(nnx.Module):
    """Stages in a list, a batch-norm in each: what a shallow reset would miss."""

    def __init__(self, dtype, rngs, stages=2):
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.stem = nnx.Linear(FEATURES, WIDTH, **kind)
        self.stages = nnx.List([Stage(dtype, rngs) for _ in range(stages)])
        self.head = nnx.Linear(WIDTH, CLASSES, **kind)

    def features(self, inputs, *, rngs=None):
        values = self.stem(inputs)
        for stage in self.stages:
            values = stage(values)
        return values

    def __call__(self, inputs, *, rngs=None):
        return self.head(self.features(inputs, rngs=rngs))


class ForeignNet(StagedNet):
    """One stage behind a convolution over positions that is XLA's own, not ours."""

    def __init__(self, dtype, rngs):
        super().__init__(dtype, rngs, stages=1)
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.stem = nnx.Conv(1, WIDTH, kernel_size=(3,), **kind)

    def features(self, inputs, *, rngs=None):
        values = self.stem(inputs[:, :, None]).mean(axis=1)
        for stage in self.stages:
            values = stage(values)
        return values


def softmax(dtype=jnp.float64):
    """Softmax regression by hand; drawn at random, the library's starts at zero."""

    def init(key):
        return Variables(
            {"kernel": jax.random.normal(key, (FEATURES, CLASSES), dtype)}, {}
        )

    def apply(variables, inputs):
        return inputs @ variables.params["kernel"]

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, lambda _, inputs: inputs)


def raw_convolution(dtype=jnp.float64):
    """A foreign model over positions that calls XLA's convolution."""

    def init(key):
        return Variables({"kernel": jax.random.normal(key, (3, 1, CLASSES), dtype)}, {})

    def apply(variables, inputs):
        kernel, layout = variables.params["kernel"], ("NWC", "WIO", "NWC")
        moved = jax.lax.conv_general_dilated(
            inputs[:, :, None], kernel, (1,), "SAME", dimension_numbers=layout
        )
        return jnp.sum(jnp.tanh(moved), axis=1)

    def apply_train(key, variables, inputs):
        return apply(variables, inputs), variables

    return Model(init, apply, apply_train, lambda _, inputs: inputs)


MODELS = {
    "softmax": softmax,
    "mlp": lambda dtype: mlp(
        (FEATURES,), CLASSES, widths=(WIDTH,), activation=jnp.tanh, dtype=dtype
    ),
    "norm": lambda dtype: from_nnx(lambda rngs: StagedNet(dtype, rngs)),
    "short": lambda dtype: from_nnx(lambda rngs: StagedNet(dtype, rngs, stages=1)),
    "foreign": lambda dtype: from_nnx(lambda rngs: ForeignNet(dtype, rngs)),
}


def learner(net, dtype=jnp.float64, *, loss=cross_entropy, l2=0.0, **recipe):
    """A learner whose recipe fits the examples in a few steps."""
    settings = {"epochs": 10, "batch_size": 8, "weight_decay": 0.0} | recipe
    return Learner(MODELS[net](dtype), loss, l2, Recipe(**settings))
