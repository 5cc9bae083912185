"""Every program is made for TPUs and CUDA on a machine that has neither.

Lowering refuses what a platform has no rule for, such as LAPACK's routines; what its
compiler refuses later is in ``test_compile.py``.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from described import shaped
from programs import programs, small_nets

from unlearn_jax.curvature.kronecker_blocks import Factors, decompose
from unlearn_kernels.target import targeting

PROGRAMS = {program.name: program for program in programs(small_nets())}
DOUBLE = [name for name, program in PROGRAMS.items() if program.double]
RIDGES = [name for name in DOUBLE if name.startswith("ridge")]
FEW = (
    *("diagonal empirical Fisher lm", "EK-FAC fit lm", "contraction gram lm"),
    *("solver low rank", "method newton_removal", "ridge gram remove"),
)
"""Of the language model, and in float64; others differ little from the CNN's, and from
those in float32."""
HOST = re.compile(r"custom_call @(lapack|cpu|ducc)\w*")


def every_day(names, slow):
    """Names as parameters, those that ``slow`` holds for and FEW has not as slow."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW and slow(name)))
        for name in names
    ]


def exported(name, *platforms):
    """Text of the program that the first platform's sizes and structure give."""
    with targeting(platforms[0]):
        function, shapes = PROGRAMS[name].make()
        # Else a function that is compiled already keeps what it captured.
        whole = jax.jit(lambda *arguments: function(*arguments))
        return jax.export.export(whole, platforms=platforms)(
            *shaped(shapes)
        ).mlir_module()


@pytest.fixture
def single():
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("name", every_day(PROGRAMS, lambda n: n.endswith(" lm")))
def test_single_precision_for_both(name, single):
    text = exported(name, "tpu", "cuda")
    assert "xf64" not in text
    assert not HOST.search(text)


@pytest.mark.parametrize(
    "name", every_day((n for n in DOUBLE if n not in RIDGES), lambda n: True)
)
def test_double_precision_for_both(name):
    text = exported(name, "tpu", "cuda")
    assert "xf64" in text or "<f64>" in text
    assert not HOST.search(text)


@pytest.mark.parametrize("name", every_day(RIDGES, lambda n: True))
def test_exact_sums_need_the_float64_of_a_processor(name):
    assert not HOST.search(exported(name, "cuda"))
    with pytest.raises(NotImplementedError, match="pair of float32 numbers"):
        exported(name, "tpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLE)
@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_what_is_structured_for_gpus_too(name, platform):
    assert exported(name, platform)


def test_the_convolution_of_the_target_is_taken(single):
    """A processor's patches would be poor elsewhere."""
    text = exported("train fit cnn", "tpu", "cuda")
    assert "stablehlo.convolution" in text


def test_what_a_platform_has_no_rule_for_is_noticed():
    """The test of this file could not pass otherwise by accident."""

    def schur(matrix):
        return jax.scipy.linalg.schur(matrix)

    whole = jax.export.export(jax.jit(schur), platforms=("tpu",))
    with pytest.raises(NotImplementedError, match="schur"):
        whole(jax.ShapeDtypeStruct((3, 3), jnp.float32))


@pytest.mark.parametrize("size", [3, 300])
def test_eigenbases_of_factors_are_one_loop_on_tpus(size, single):
    """Splitting by polar decompositions is long to compile, at each size anew."""
    factors = Factors(*[jax.ShapeDtypeStruct((1, size, size), jnp.float32)] * 2)
    whole = jax.export.export(jax.jit(decompose), platforms=("tpu",))
    text = whole(factors).mlir_module()
    assert set(re.findall(r"custom_call @(\w+)", text)) == {"Eigh"}
