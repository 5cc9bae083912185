"""Published weights of Llama's kind, read from safetensors or GGUF and written back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.models.model import Model
from unlearn_jax.models.rotary import halves_from_pairs
from unlearn_jax.models.stacking import stack_blocks, unstack_blocks
from unlearn_jax.models.transformer import Shape, of_shape
from unlearn_jax.storage.tensors import Tensors, read_tensors, write_safetensors
from unlearn_jax.storage.write import write_bytes
from unlearn_jax.train.exchange import variables_from
from unlearn_jax.train.llama_shape import (
    config_of_shape,
    shape_of_config,
    shape_of_gguf,
)
from unlearn_jax.types import Array, Params, Variables


class Pretrained(NamedTuple):
    """Description: a model that was read, and the sizes that it was built from."""

    model: Model
    variables: Variables
    shape: Shape


class _Name(NamedTuple):
    """Description: one parameter of a block or of the whole, in each kind of file."""

    own: tuple[str, ...]
    safetensors: str
    gguf: str
    rotated: str = ""


_WHOLE = (
    _Name(("tokens", "embedding"), "model.embed_tokens", "token_embd"),
    _Name(("norm", "scale"), "model.norm", "output_norm"),
    _Name(("head", "kernel"), "lm_head", "output"),
)
_BLOCK = (
    _Name(("before_attention", "scale"), "input_layernorm", "attn_norm"),
    _Name(("attention", "query", "kernel"), "self_attn.q_proj", "attn_q", "heads"),
    _Name(("attention", "key", "kernel"), "self_attn.k_proj", "attn_k", "groups"),
    _Name(("attention", "value", "kernel"), "self_attn.v_proj", "attn_v"),
    _Name(("attention", "out", "kernel"), "self_attn.o_proj", "attn_output"),
    _Name(("before_mlp", "scale"), "post_attention_layernorm", "ffn_norm"),
    _Name(("gate", "kernel"), "mlp.gate_proj", "ffn_gate"),
    _Name(("up", "kernel"), "mlp.up_proj", "ffn_up"),
    _Name(("down", "kernel"), "mlp.down_proj", "ffn_down"),
)


def read_llama(
    path: str | Path,
    *,
    scan: bool = True,
    remat: bool = False,
    trained: int | None = None,
    context: int | None = None,
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Pretrained:
    """A published transformer of Llama's kind, as a model of this library.

    Args:
        path: A ``.gguf`` file, or a folder (or a ``.safetensors`` file in it) with
            ``config.json`` and ``model.safetensors`` or its index of several files.
        scan: Keep the blocks stacked.
        remat: Compute blocks once more on the way back.
        trained: Blocks from the top whose gradient is taken, the others being frozen
            (``transformer.Shape``); None for all. Of stacked blocks.
        context: The longest sequence that the model takes; None: the published one.
        dtype: Of the parameters.
        compute_dtype: Of the arithmetic; None takes ``dtype``.

    Raises:
        ValueError: what ``read_tensors`` refuses, another architecture, a tensor that
            is missing, foreign, of another shape, or not finite.

    Quantised weights are unpacked, and are then those of the quantised model, not of
    the one that was published before. The two files keep queries and keys in different
    orders: see :func:`~unlearn_jax.models.rotary.halves_from_pairs`.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        tensors = read_tensors(path)
        tied = "output.weight" not in tensors.arrays
        shape, kind = shape_of_gguf(tensors.facts, tied=tied, name=str(path)), "gguf"
    else:
        tensors, shape = _read_folder(path)
        kind = "safetensors"
    shape = shape._replace(remat=remat, context=context or shape.context)
    listed = of_shape(shape, dtype=dtype)
    like = jax.eval_shape(listed.init, jax.random.key(0))
    found = _own_names(tensors.arrays, shape, kind, str(path))
    variables = variables_from(found, like, name=str(path))
    if scan:
        shape, variables = shape._replace(scan=True), stack_blocks(variables)
    if trained is not None:
        if not (scan and 1 <= trained <= shape.depth):
            raise ValueError(
                f"trained is {trained} with scan={scan}, expected 1 to the "
                f"{shape.depth} blocks of {path}, stacked"
            )
        shape = shape._replace(frozen=shape.depth - trained)
    return Pretrained(
        of_shape(shape, dtype=dtype, compute_dtype=compute_dtype), variables, shape
    )


def write_llama(folder: str | Path, shape: Shape, params: Params) -> None:
    """Write parameters so that other programs read them as a Llama.

    Args:
        folder: Gets ``model.safetensors`` and ``config.json``.
        shape: Of the model.
        params: Of the model, blocks listed or stacked.

    Raises:
        StorageError: the disk cannot take it.
        ValueError: parameters of another model, or safetensors is not installed.
    """
    folder = Path(folder)
    variables = Variables(params, {})
    if shape.scan:
        variables = unstack_blocks(variables)
    like = jax.eval_shape(of_shape(shape._replace(scan=False)).init, jax.random.key(0))
    tree: Any = variables_from(variables._asdict(), like, name="params").params
    arrays = {
        name: _turned(np.asarray(_at(tree, own)), own)
        for own, name, _ in _names(shape, "safetensors")
    }
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    about = json.dumps(config_of_shape(shape), indent=2)
    write_bytes(folder / "config.json", f"{about}\n".encode())


def _read_folder(path: Path) -> tuple[Tensors, Shape]:
    folder, file = (path, None) if path.is_dir() else (path.parent, path)
    tensors = read_tensors(file) if file else None
    about = folder / "config.json"
    if not about.is_file():
        raise ValueError(
            f"there is no config.json in {folder}, which says the sizes of the model; "
            f"put it beside the tensors, or give a .gguf file"
        )
    try:
        config = json.loads(about.read_text())
    except ValueError as error:
        raise ValueError(f"{about} is no JSON ({error}); fetch it once more") from None
    shape = shape_of_config(config, name=str(about))
    if tensors is None:
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        tensors = read_tensors(index if index.is_file() else single)
    return tensors, shape


def _names(shape: Shape, kind: str) -> list[tuple[tuple[Any, ...], str, str]]:
    """(path here, name in the file, what its columns are rotated heads of)."""
    pick: Callable[[_Name], str] = lambda name: getattr(name, kind)  # noqa: E731
    before = "model.layers" if kind == "safetensors" else "blk"
    found = [
        (one.own, f"{pick(one)}.weight", one.rotated)
        for one in _WHOLE
        if not (shape.tied and one.own[0] == "head")
    ]
    for number in range(shape.depth):
        found += [
            (
                ("blocks", number, *one.own),
                f"{before}.{number}.{pick(one)}.weight",
                one.rotated,
            )
            for one in _BLOCK
        ]
    return found


def _own_names(
    arrays: dict[str, np.ndarray], shape: Shape, kind: str, name: str
) -> dict[str, Array | np.ndarray]:
    names = _names(shape, kind)
    held = {one for one in arrays if not one.endswith("rotary_emb.inv_freq")}
    if shape.tied:
        held.discard("lm_head.weight")
    known = [their for _, their, _ in names]
    faults = [f"{one} is missing" for one in known if one not in held]
    faults += [f"{one} is unknown" for one in sorted(held - set(known))]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"{name} is not of a Llama of {shape.depth} blocks: "
            f"{', '.join(faults[:3])}{more}; the file is cut short, or of another model"
        )
    found = {}
    for own, their, rotated in names:
        array = _turned(arrays[their], own)
        if rotated and kind == "gguf":
            array = halves_from_pairs(jnp.asarray(array), getattr(shape, rotated))
        found["/".join(map(str, own))] = array
    return found


def _turned(array: np.ndarray, own: tuple[Any, ...]) -> np.ndarray:
    """Kernels are kept (in, out) here and (out, in) there."""
    return array.T if own[-1] == "kernel" else array


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree
