"""Programs of a transformer: texts of a small one, curvature of one of a billion."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from described import Made, Program, key_shape
from jax.sharding import Mesh

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.models import MODELS
from unlearn_jax.models.generate import Sampling, generate
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.types import Batch, Params

BILLION = {"depth": 16, "width": 2048, "heads": 32, "groups": 8, "hidden": 8192}
"""Of Llama 3.2's smallest: 1,235,814,400 parameters with 128,256 tokens."""
TEXTS, TOKENS, VOCABULARY = 4, 512, 128_256


def language() -> Iterator[Program]:
    """Texts of a small transformer."""

    def texts() -> Made:
        model = MODELS["transformer"]((32,), 64, width=16, scan=True)
        variables = jax.eval_shape(model.init, jax.random.key(0))
        sampling = Sampling(0.7, top_k=8, top_p=0.9)
        go = lambda key, known, rows: generate(  # noqa: E731
            key, model, known, rows, steps=8, sampling=sampling
        )
        rows = jax.ShapeDtypeStruct((2, 16), jnp.int32)
        return go, (key_shape(), variables, rows)

    yield Program("language texts", texts)


def billion(mesh: Mesh | None = None) -> Iterator[Program]:
    """Curvature of a billion parameters, four texts at once, over the data of a mesh.

    Parameters in float32, layers in bfloat16, blocks recomputed in backward passes.
    """

    def made(build: Callable[..., Any]) -> Made:
        model = MODELS["transformer"](
            (TOKENS,),
            VOCABULARY,
            **BILLION,
            scan=True,
            remat=True,
            compute_dtype=jnp.bfloat16,
        )
        params = jax.eval_shape(model.init, jax.random.key(0)).params
        rows = jax.ShapeDtypeStruct((TEXTS, TOKENS), jnp.int32)
        batch = Batch(rows, rows, jax.ShapeDtypeStruct((TEXTS,), jnp.float32))
        return partial(build, bind(model, {}, sequence_nll)), (params, batch)

    def gradient(objective: Objective, params: Params, batch: Batch) -> Params:
        return jax.grad(objective.risk)(params, batch)

    def product(objective: Objective, params: Params, batch: Batch) -> Params:
        matrix = over_batches(
            *(gauss_newton, objective, params, batch), batch_size=TEXTS, mesh=mesh
        )
        return matrix(params)

    def eigenbasis(objective: Objective, params: Params, batch: Batch) -> Any:
        return ekfac(None, objective, params, batch, mesh=mesh)

    for name, build in {
        "gradient": gradient,
        "diagonal empirical Fisher": partial(empirical_fisher_diagonal, mesh=mesh),
        "operator Gauss-Newton, one product": product,
        "EK-FAC fit": eigenbasis,
    }.items():
        yield Program(f"{name} of a billion", partial(made, build))
