import jax
import jax.numpy as jnp
import pytest

from unlearn_kernels.convolution import conv2d
from unlearn_kernels.fisher_diagonal import square_sum
from unlearn_kernels.target import target_platform, targeting

PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "rocm": "gpu", "gpu": "gpu", "tpu": "tpu"}


@pytest.mark.parametrize(("name", "kind"), PLATFORMS.items())
def test_the_innermost_context_decides_and_ends(name, kind):
    before = target_platform()
    with targeting("tpu"):
        with targeting(name):
            assert target_platform() == kind
        assert target_platform() == "tpu"
    assert target_platform() == before


def test_without_an_override_the_default_device_decides():
    with targeting("tpu"), jax.default_device(jax.devices("cpu")[0]):
        assert target_platform() == "tpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert target_platform() == "cpu"
    with jax.default_device("cpu"):
        assert target_platform() == "cpu"


def test_a_default_device_goes_before_the_default_backend(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert target_platform() == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert target_platform() == "cpu"
    monkeypatch.setattr("jax.default_backend", lambda: "METAL")
    assert target_platform() == "gpu"


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="'gpus'; expected one of cpu, gpu, cuda"):
        targeting("gpus")


def test_a_compiled_function_is_traced_anew_for_another_platform():
    """Else the form of one platform would be found by the program of another."""
    convolve = jax.jit(conv2d)
    images, kernel = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))

    def raw():
        return "conv_general" in str(convolve.trace(images, kernel).jaxpr)

    found = []
    for platform in ("cpu", "gpu", "cpu"):
        with targeting(platform):
            found.append(raw())
    assert found == [False, True, False]


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda", "rocm"])
def test_a_kernel_is_chosen_where_the_program_is_lowered(platform):
    """Whatever was targeted while it was traced."""
    shapes = [(3, 1, 4, 2), (3, 1, 4, 5), (3,)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    traced = jax.jit(square_sum).trace(*arrays)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("while" in text) == (platform == "cpu")
