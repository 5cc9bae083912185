"""Every public piece of the library as a named program, to be made for absent devices.

``programs(nets)`` gives descriptions; nothing is traced before ``make`` is called, in
the context of the platform that the program is for.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from curvature_programs import curvatures
from described import Made, Program, key_shape, real, shaped
from editing_programs import editing
from jax.sharding import Mesh
from language_programs import billion, language
from methods.strong import SETTINGS

from benchmarks import workloads
from unlearn_jax.attribution import ATTRIBUTIONS
from unlearn_jax.attribution.attribution import Evidence, Subsets, Trajectory
from unlearn_jax.attribution.influence import influence_on_outputs
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.attribution.trace import trace_like
from unlearn_jax.curvature.fisher import empirical_fisher, fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.jacobian import tangent_kernel
from unlearn_jax.curvature.operator import damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.curvature.spectrum import extreme_eigenvalues, spectral_density
from unlearn_jax.curvature.stochastic_diagonal import (
    bekas_diagonal,
    hutchinson_diagonal,
)
from unlearn_jax.methods import METHODS, make_request
from unlearn_jax.models import MODELS
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.krylov import lanczos, low_rank_inverse
from unlearn_jax.solvers.lasso import lasso
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.ridge import FORMS
from unlearn_jax.solvers.woodbury import woodbury_apply, woodfisher
from unlearn_jax.train.ensemble import member_program
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.train.trajectory import fit_trajectory
from unlearn_jax.types import Batch
from unlearn_kernels.convolution import conv2d
from unlearn_kernels.fisher_diagonal import square_sum
from unlearn_kernels.pooling import max_pool2d


def programs(nets: dict[str, workloads.Workload]) -> list[Program]:
    """All of them, curvature on the nets that are given."""
    found = [*kernels(), *training(), *solvers(), *ridges(), *methods()]
    found += [*attributions(), *language(), *editing()]
    for net in nets.values():
        found += curvatures(net)
    return found


def large_programs(mesh: Mesh | None = None) -> list[Program]:
    """Curvature at sizes worth a table, examples over the data of a mesh."""
    found: list[Program] = []
    for net in large_nets().values():
        found += curvatures(net, mesh)
    return [*found, *billion(mesh)]


def small_nets() -> dict[str, workloads.Workload]:
    """Few examples: a program's length does not depend on them."""
    makers = (workloads.cnn, workloads.language_model)
    return {net.name: net for net in (make(4) for make in makers)}


def large_nets() -> dict[str, workloads.Workload]:
    """Those that are timed, as many examples as one would take at once."""
    found = [workloads.mlp(1024), workloads.cnn(1024), workloads.language_model(256)]
    found.append(workloads.resnet18(128))
    return {net.name: net for net in found}


def kernels() -> Iterator[Program]:
    like = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    images, taps = like((8, 16, 16, 32)), like((3, 3, 32, 64))
    for form in ("reference", "patches", "winograd", None):

        def convolve(x: Any, k: Any, form: Any = form) -> Any:
            value, back = jax.vjp(partial(conv2d, implementation=form), x, k)
            return back(value)

        yield Program(
            f"kernels conv2d {form} with gradient",
            lambda convolve=convolve: (convolve, (images, taps)),
        )
    for form in ("reference", "tiles", None):

        def pool(x: Any, form: Any = form) -> Any:
            return jax.grad(lambda x: jnp.sum(max_pool2d(x, implementation=form)))(x)

        yield Program(
            f"kernels max_pool2d {form} gradient", lambda pool=pool: (pool, (images,))
        )
    factors = like((8, 1, 64, 128)), like((8, 1, 64, 256)), like((8,))
    for form in ("reference", "streamed", None):
        yield Program(
            f"kernels square_sum {form}",
            lambda form=form: (partial(square_sum, implementation=form), factors),
        )


def training() -> Iterator[Program]:
    def batch(count: int, *shape: int) -> Batch:
        like = jax.ShapeDtypeStruct
        inputs, labels = like((count, *shape), jnp.float32), like((count,), jnp.int32)
        return Batch(inputs, labels, like((count,), jnp.float32))

    for net, shape in (("mlp", (28, 28, 1)), ("cnn", (32, 32, 3))):

        def make(net: str = net, shape: Any = shape) -> Made:
            recipe = Recipe(epochs=2, batch_size=16)
            learner = Learner(MODELS[net](shape, 10), cross_entropy, 0.0, recipe)
            train = lambda key, data: fit(key, learner, data)  # noqa: E731
            return train, (key_shape(), batch(64, *shape))

        yield Program(f"train fit {net}", make)

    def ensemble() -> Made:
        learner = tiny.learner("mlp", real())
        data = shaped(tiny.examples())
        weights = jax.ShapeDtypeStruct((4, tiny.COUNT), data.weights.dtype)
        return member_program(learner), (key_shape(4), weights, data)

    yield Program("train ensemble of 4", ensemble)


def linear_problem() -> tuple[Any, Any, Batch]:
    learner = tiny.learner("mlp", real())
    data = shaped(tiny.examples())
    variables = jax.eval_shape(learner.model.init, jax.random.key(0))
    return learner, variables, data


def solvers() -> Iterator[Program]:
    def program(name: str, function: Callable[..., Any]) -> Program:
        """A function of (key, operator, right-hand side)."""

        def make() -> Made:
            learner, variables, data = linear_problem()
            objective = bind(learner.model, variables.stats, learner.loss)

            def run(key: Any, p: Any, b: Batch) -> Any:
                return function(key, damped(gauss_newton(objective, p, b), 0.1), p)

            return run, (key_shape(), variables.params, data)

        return Program(name, make, double=True)

    def four(v: Any) -> Any:
        return jax.tree.map(lambda x: jnp.stack([x] * 4), v)

    yield program(
        "solver block CG", lambda k, a, v: block_conjugate_gradient(a, four(v))
    )
    yield program("solver MINRES", lambda k, a, v: minres(a, v))
    yield program("solver Neumann", lambda k, a, v: neumann(a, v, key=k))
    yield program(
        "solver low rank",
        lambda k, a, v: low_rank_inverse(lanczos(k, a, rank=4), v, damping=0.1),
    )
    yield program(
        "solver WoodFisher",
        lambda k, a, v: woodbury_apply(woodfisher(four(v), damping=0.1), v),
    )
    yield program(
        "diagonal by Hutchinson", lambda k, a, v: hutchinson_diagonal(k, a, probes=4)
    )
    yield program("diagonal by Bekas", lambda k, a, v: bekas_diagonal(k, a, probes=4))
    yield program("spectrum ends", lambda k, a, v: extreme_eigenvalues(k, a, steps=4))
    yield program(
        "spectrum density",
        lambda k, a, v: spectral_density(k, a, probes=2, steps=4),
    )

    def operators() -> Made:
        learner, variables, data = linear_problem()
        objective = bind(learner.model, variables.stats, learner.loss)

        def run(p: Any, b: Batch) -> Any:
            summed = over_batches(gauss_newton, objective, p, b, batch_size=16)
            kinds = (empirical_fisher, fisher)
            products = [kind(objective, p, b)(p) for kind in kinds]
            kernel = tangent_kernel(objective, p, b.inputs)
            return summed(p), products, kernel

        return run, (variables.params, data)

    yield Program("operators Fisher, tangent kernel, over batches", operators, True)

    def sparse() -> Made:
        like = partial(jax.ShapeDtypeStruct, dtype=real())
        return lambda x, y: lasso(x, y, l1=0.1), (like((64, 32)), like((64, 3)))

    yield Program("solver lasso", sparse, double=True)

    def influences() -> Made:
        learner, variables, data = linear_problem()
        objective = bind(learner.model, variables.stats, learner.loss)

        def run(p: Any, b: Batch) -> Any:
            curvature = damped(gauss_newton(objective, p, b), 0.1)

            def inverse(v: Any) -> Any:
                return conjugate_gradient(curvature, v).value

            return influence_on_outputs(objective, p, b, b, component(1), inverse)

        return run, (variables.params, data)

    yield Program("attribution influence on outputs by CG", influences, double=True)


def ridges(features: int = 512) -> Iterator[Program]:
    for form, entry in FORMS.items():

        def make(entry: Any = entry) -> Made:
            like = partial(jax.ShapeDtypeStruct, dtype=real())
            start = partial(entry.start, features, 10, l2=1.0, dtype=real())
            rows = Batch(like((32, features)), like((32, 10)), like((32,)))
            return entry.remove, (jax.eval_shape(start), rows)

        yield Program(f"ridge {form} remove", make, double=True)


def methods() -> Iterator[Program]:
    for name, entry in METHODS.items():

        def make(name: str = name, entry: Any = entry) -> Made:
            settings = dict(SETTINGS[name])
            if "tol" in settings and real() == np.float32:
                settings["tol"] = 1e-6
            learner = tiny.learner("short", real())
            examples = tiny.examples()
            if "classification" not in entry.tasks:
                learner = learner._replace(loss=squared_error)
                examples = tiny.numeric(examples)
            data = shaped(examples)
            method = entry.factory(learner, **settings)
            variables = jax.eval_shape(learner.model.init, jax.random.key(0))
            trace = ()
            if method.reads_trace:
                variables, told = trace_like(learner, data, points=2, segments=1)
                trace = (told,)
            request = shaped(make_request(examples, (0, 4, 9, 20, 31, 46)))

            def run(key: Any, v: Any, b: Any, r: Any, *trace: Any) -> Any:
                return method.forget(key, method.prepare(key, v, b, *trace), v, r)

            return run, (key_shape(), variables, data, request, *trace)

        yield Program(f"method {name}", make, double="newton" in name)


def attributions() -> Iterator[Program]:
    options: dict[str, Any] = {"trak": {"width": 32}, "sparse_datamodel": {"l1": 0.05}}
    for name, entry in ATTRIBUTIONS.items():

        def make(name: str = name, entry: Any = entry) -> Made:
            learner = tiny.learner("softmax", real(), l2=0.1, epochs=4)
            plain = dataclasses.replace(
                learner.recipe, momentum=0.0, schedule="constant"
            )
            learner = learner._replace(recipe=plain)
            data, queries = shaped(tiny.examples()), shaped(tiny.examples(count=4))
            keys = key_shape(2)
            weights = jax.ShapeDtypeStruct((5, tiny.COUNT), data.weights.dtype)

            def run(keys: Any, data: Any, weights: Any, evidence: Any, q: Any) -> Any:
                attribution = entry.factory(learner, **options.get(name, {}))
                state = attribution.prepare(keys[0], evidence, data)
                effects = attribution.effects(state, data, q, component(1))
                return effects, attribution.change(state, data, q, data.weights)

            def evidence(keys: Any, data: Any, weights: Any) -> Evidence:
                models, pieces = jax.vmap(
                    lambda k: fit_trajectory(k, learner, data, points=3)
                )(keys)
                pieces = (pieces[0], pieces[1][0], pieces[2][0])
                members = jax.vmap(
                    lambda w: fit(keys[0], learner, data._replace(weights=w))
                )(weights)
                subsets = Subsets(weights, members)
                return Evidence(models, keys, Trajectory(*pieces), subsets)

            told = jax.eval_shape(evidence, keys, data, weights)
            blank = ("keys", "trajectory", "ensemble")
            told = told._replace(
                **{field: None for field in blank if field not in entry.reads}
            )
            return run, (keys, data, weights, told, queries)

        yield Program(f"attribution {name}", make)
