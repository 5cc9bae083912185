"""Which code decides a result: by what modules import, and not by what lies beside."""

from unlearn_jax.storage.source import needed, source_digest


def test_a_module_needs_what_it_imports_and_no_neighbour():
    found = needed(("unlearn_jax.models.diffusion_transformer",))
    assert "unlearn_jax.models.diffusion_transformer" in found
    assert "unlearn_jax.models.attention" in found  # by way of the text encoder
    assert "unlearn_jax.models.resnet" not in found
    assert "unlearn_jax.models" not in found
    assert all(name.startswith(("unlearn_jax", "unlearn_kernels")) for name in found)


def test_a_module_that_is_named_from_its_package_counts():
    assert "unlearn_jax.loop" in needed(("unlearn_jax.diffusion.sampler",))
    assert "unlearn_jax.tree" in needed(("unlearn_jax.train.descent",))
    assert needed(("numpy",)) == ()


def test_digests_tell_other_code_apart():
    one, other = (
        source_digest(needed((f"unlearn_jax.models.{name}",)))
        for name in ("attention", "rotary")
    )
    assert one != other
