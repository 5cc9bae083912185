"""The sizes of a published transformer, from ``config.json`` or a GGUF file's facts."""

from collections.abc import Mapping
from typing import Any

from unlearn_jax.models.transformer import Shape


def shape_of_config(config: Mapping[str, Any], *, name: str) -> Shape:
    """From the ``config.json`` that stands beside ``safetensors`` files.

    Args:
        config: Its content.
        name: What the error calls it.

    Raises:
        ValueError: another architecture, or a part that this transformer has not.
    """
    kind = config.get("model_type")
    if kind != "llama":
        raise ValueError(
            f"{name} is of a model of type {kind!r}, expected 'llama'; only that "
            f"architecture is known here"
        )
    ropes = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = ropes.get("rope_type", ropes.get("type", "default"))
    strange = {
        "positions": scaled if scaled != "default" else None,
        "a bias in attention": config.get("attention_bias"),
        "a bias in the MLP": config.get("mlp_bias"),
        "activation": _other(config.get("hidden_act", "silu"), "silu", "swish"),
    }
    _refuse_strange(strange, name)
    width, heads = (
        _entry(config, key, name) for key in ("hidden_size", "num_attention_heads")
    )
    return Shape(
        vocabulary=_entry(config, "vocab_size", name),
        context=_entry(config, "max_position_embeddings", name),
        depth=_entry(config, "num_hidden_layers", name),
        width=width,
        heads=heads,
        groups=config.get("num_key_value_heads") or heads,
        size=config.get("head_dim") or width // heads,
        hidden=_entry(config, "intermediate_size", name),
        tied=bool(config.get("tie_word_embeddings", False)),
        base=float(config.get("rope_theta") or ropes.get("rope_theta") or 10_000.0),
        epsilon=float(config.get("rms_norm_eps", 1e-6)),
    )


def config_of_shape(shape: Shape) -> dict[str, Any]:
    """A ``config.json`` that other programs build the same model from."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "num_hidden_layers": shape.depth,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "head_dim": shape.size,
        "intermediate_size": shape.hidden,
        "tie_word_embeddings": shape.tied,
        "rope_theta": shape.base,
        "rms_norm_eps": shape.epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float32",
    }


def shape_of_gguf(facts: Mapping[str, Any], *, tied: bool, name: str) -> Shape:
    """From the facts that stand in a GGUF file.

    Args:
        facts: By their keys in the file.
        tied: Whether the file has no head of its own.
        name: What the error calls it.

    Raises:
        ValueError: another architecture, or a part that this transformer has not.
    """
    kind = facts.get("general.architecture")
    if kind != "llama":
        raise ValueError(
            f"{name} is of the architecture {kind!r}, expected 'llama'; only that one "
            f"is known here"
        )
    own = {key.removeprefix("llama."): value for key, value in facts.items()}
    words = facts.get("tokenizer.ggml.tokens")
    width, heads = (
        _entry(own, key, name) for key in ("embedding_length", "attention.head_count")
    )
    size = own.get("attention.key_length") or width // heads
    turned = own.get("rope.dimension_count", size)
    strange = {
        "positions": _other(own.get("rope.scaling.type", "none"), "none"),
        "turned part of a head": None if turned == size else f"{turned} of {size}",
        "experts": own.get("expert_count"),
    }
    _refuse_strange(strange, name)
    return Shape(
        vocabulary=own.get("vocab_size") or len(words or ()),
        context=_entry(own, "context_length", name),
        depth=_entry(own, "block_count", name),
        width=width,
        heads=heads,
        groups=own.get("attention.head_count_kv") or heads,
        size=size,
        hidden=_entry(own, "feed_forward_length", name),
        tied=tied,
        base=float(own.get("rope.freq_base", 10_000.0)),
        # Stored in float32, from a decimal number.
        epsilon=float(f"{own.get('attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
    )


def _entry(facts: Mapping[str, Any], key: str, name: str) -> int:
    value = facts.get(key)
    if not isinstance(value, int):
        raise ValueError(
            f"{name} says {key} = {value!r}, expected a whole number; it does not "
            f"describe a transformer of this kind"
        )
    return value


def _other(given: Any, *known: str) -> Any:
    return None if given in known else given


def _refuse_strange(strange: Mapping[str, Any], name: str) -> None:
    found = [f"{what} ({value})" for what, value in strange.items() if value]
    if found:
        raise ValueError(
            f"{name} has what the transformer here has not: {', '.join(found)}; choose "
            f"a model without"
        )
