"""Five small problems with known answers, in float64.

Each is a plain function of its sizes; the same call gives the same numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unlearn_jax.data import synthetic
from unlearn_jax.models import MODELS, from_nnx
from unlearn_jax.models.resnet import ConvNorm
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Batch

FULL_BATCH = Recipe(
    epochs=600,
    batch_size=10_000,
    learning_rate=0.25,
    momentum=0.9,
    weight_decay=0.0,
    schedule="constant",
)
MINIBATCH = Recipe(epochs=3, batch_size=4, learning_rate=0.05, weight_decay=0.0)


def _on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def quadratic(n=12, eigenvalues=(1.0, 0.3, 0.1)):
    """Noise-free least squares whose curvature and minimum are chosen.

    Returns:
        (objective, data, optimum, hessian): the risk at w is
        ½ (w - optimum)ᵀ hessian (w - optimum), its minimum 0.
    """
    dataset = synthetic.quadratic(0, (n, 1), eigenvalues=eigenvalues, dtype=np.float64)
    objective = Objective(
        lambda params, inputs: jnp.asarray(inputs) @ params["weight"], squared_error
    )
    optimum = {"weight": jnp.ones((len(eigenvalues), 1))}
    return (
        objective,
        _on_device(dataset.splits.train),
        optimum,
        np.diag(np.asarray(eigenvalues)),
    )


def ridge(n=20, features=3, outputs=2, l2=0.1):
    """Linear regression with an l2 penalty (on the bias too).

    Returns:
        (learner, data, solve): ``solve(weights)`` is the exact minimum of the weighted
        risk, as the model's parameters.
    """
    dataset = synthetic.linear_regression(
        0, (n, 1), features=features, outputs=outputs, dtype=np.float64
    )
    data = _on_device(dataset.splits.train)
    model = MODELS["linear"]((features,), outputs, dtype=jnp.float64)
    learner = Learner(model, squared_error, l2, FULL_BATCH)

    def solve(weights):
        weights = np.asarray(weights) / np.sum(weights)
        design = np.concatenate([data.inputs, np.ones((n, 1))], axis=1)
        gram = design.T @ (weights[:, None] * design) + l2 * np.eye(features + 1)
        answer = np.linalg.solve(gram, design.T @ (weights[:, None] * data.targets))
        return {
            "head": {
                "kernel": jnp.asarray(answer[:-1]),
                "bias": jnp.asarray(answer[-1]),
            }
        }

    return learner, data, solve


def softmax(n=24, features=4, classes=3, l2=0.1):
    """Softmax regression: strictly convex, its minimum unique.

    Returns:
        (learner, data).
    """
    dataset = synthetic.gaussian_classes(
        0, (n, 1), classes=classes, features=features, separation=1.5, dtype=np.float64
    )
    model = MODELS["linear"]((features,), classes, dtype=jnp.float64)
    learner = Learner(model, cross_entropy, l2, FULL_BATCH)
    return learner, _on_device(dataset.splits.train)


def two_layer(n=18, features=4, classes=3, width=5, l2=1e-3):
    """A smooth net of one hidden layer.

    Returns:
        (learner, data).
    """
    dataset = synthetic.gaussian_classes(
        1, (n, 1), classes=classes, features=features, separation=1.5, dtype=np.float64
    )
    model = MODELS["mlp"](
        (features,), classes, widths=(width,), activation=jnp.tanh, dtype=jnp.float64
    )
    learner = Learner(model, cross_entropy, l2, MINIBATCH)
    return learner, _on_device(dataset.splits.train)


class TinyNormNet(nnx.Module):
    """Convolution, batch-norm, mean over positions, linear head."""

    def __init__(self, channels, width, outputs, rngs):
        kind = {"dtype": jnp.float64, "compute_dtype": None}
        self.stem = ConvNorm(channels, width, kind, rngs)
        self.head = nnx.Linear(
            width, outputs, dtype=jnp.float64, param_dtype=jnp.float64, rngs=rngs
        )

    def features(self, inputs, *, rngs=None):
        return jnp.mean(jnp.tanh(self.stem(inputs)), axis=(1, 2))

    def __call__(self, inputs, *, rngs=None):
        return self.head(self.features(inputs, rngs=rngs))


def batch_norm_net(n=12, side=4, width=3, classes=3):
    """A small convolutional net whose examples are coupled in training mode.

    Returns:
        (learner, data); inputs (n, side, side, 1).
    """
    random = np.random.default_rng(0)
    inputs = random.standard_normal((n, side, side, 1))
    targets = np.arange(n, dtype=np.int32) % classes
    inputs += targets[:, None, None, None]
    model = from_nnx(lambda rngs: TinyNormNet(1, width, classes, rngs))
    learner = Learner(model, cross_entropy, 0.0, MINIBATCH)
    return learner, _on_device(Batch(inputs, targets, np.ones(n)))
