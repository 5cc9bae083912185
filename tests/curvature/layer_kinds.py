"""One small net for each kind of layer: (params, predict, inputs), in float64."""

import jax
import jax.numpy as jnp
from convolution_kinds import (
    channels_first,
    convolution,
    own_convolution,
    transposed_convolution,
)
from flax import nnx
from kind_parts import COUNT, OUTPUTS, draw, from_module, head, model, net
from lookup_kinds import LOOKUPS, TOKENS


def dense():
    params = {"w": draw(2, 4, 6), "b": draw(3, 6), "v": draw(4, 6, 3)}
    return net(params, lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]) @ p["v"], (4,))


def transposed_dense():
    params = {"w": draw(2, 6, 4)}
    return net(params, lambda p, x: jnp.einsum("oi,ni->no", p["w"], x), (4,))


def embedding():
    params = {"table": draw(2, 7, 4), "v": draw(3, 4, 2)}

    def predict(p, x):
        return head(jnp.tanh(jnp.take(p["table"], x, axis=0)) @ p["v"])

    return params, predict, TOKENS


def tied_embedding():
    params, _, tokens = embedding()

    def predict(p, x):
        hidden = jnp.tanh(p["table"][x])
        return head(jnp.einsum("ntd,vd->ntv", hidden, p["table"]))

    return {"table": params["table"]}, predict, tokens


def used_twice():
    params = {"w": draw(2, 4, 4)}
    return net(params, lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"], (4,))


def low_rank():
    params = {"w": draw(2, 4, 5), "a": draw(3, 4, 2), "b": draw(4, 2, 5)}
    return net(params, lambda p, x: x @ p["w"] + x @ p["a"] @ p["b"], (4,))


def merged_low_rank():
    params = {"w": draw(2, 4, 5), "a": draw(3, 4, 2), "b": draw(4, 2, 5)}
    return net(params, lambda p, x: x @ (p["w"] + p["a"] @ p["b"]), (4,))


def attention():
    params = {
        name: draw(i, *shape)
        for i, (name, shape) in enumerate(
            {"q": (6, 2, 3), "k": (6, 2, 3), "v": (6, 2, 3), "o": (2, 3, 6)}.items()
        )
    }

    def apply(p, x):
        q, k, v = (jnp.einsum("ntd,dhe->nthe", x, p[name]) for name in "qkv")
        scores = jax.nn.softmax(jnp.einsum("nthe,nshe->nhts", q, k))
        return jnp.einsum("nhts,nshe,hed->ntd", scores, v, p["o"])

    return net(params, apply, (4, 6))


def experts():
    params = {"w": draw(2, 3, 4, 5)}
    return net(params, lambda p, x: jnp.einsum("net,etd->ned", x, p["w"]), (3, 4))


def normalised(kind, rngs):
    return nnx.Sequential(kind(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs))


class Recurrence(nnx.Module):
    """Flax's recurrent layer; it starts from float32 zeros unless told."""

    def __init__(self, rngs):
        kind = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        self.layer = nnx.RNN(nnx.LSTMCell(3, 4, **kind, rngs=rngs), rngs=rngs)

    def __call__(self, values):
        zeros = jnp.zeros((values.shape[0], 4))
        return self.layer(values, initial_carry=(zeros, zeros))


def recurrence():
    return from_module(Recurrence, (5, 3))


def learned_start():
    params = {"h": draw(2, 4), "w": draw(3, 4, 4), "u": draw(4, 3, 4), "b": draw(5, 4)}

    def apply(p, x):
        def step(h, row):
            h = jnp.tanh(h @ p["w"] + row @ p["u"] + p["b"][None])
            return h, h

        start = jnp.broadcast_to(p["h"][None], (x.shape[0], 4))
        return jax.lax.scan(step, start, jnp.moveaxis(x, 1, 0), reverse=True)[1].sum(0)

    return net(params, apply, (5, 3))


def scanned_layers():
    params = {"w": draw(2, 3, 4, 4), "b": draw(3, 3, 4)}

    def apply(p, x):
        def layer(h, own):
            return jnp.tanh(h @ own["w"] + own["b"][None]), None

        return jax.lax.scan(layer, x, p)[0]

    return net(params, apply, (4,))


def nested_scans():
    params = {"w": draw(2, 2, 3, 4, 4), "c": draw(3, 4, 4)}

    def apply(p, x):
        def outer(h, own):
            def inner(g, w):
                return jnp.tanh(g @ w + h @ p["c"]), None

            return jax.lax.scan(inner, h, own)[0], None

        return jax.lax.scan(outer, x, p["w"])[0]

    return net(params, apply, (4,))


def shared_and_own_weight():
    params = {"w": draw(2, 4, 4), "u": draw(3, 3, 4, 4)}

    def apply(p, x):
        def layer(h, own):
            return jnp.tanh(h @ (p["w"] + own)), None

        return jax.lax.scan(jax.checkpoint(layer), x, p["u"])[0]

    return net(params, apply, (4,))


def spectral_weights():
    params = {"a": draw(2, 3, 4), "b": draw(3, 3, 4)}

    def apply(p, x):
        found = jnp.fft.rfft(x, axis=1) @ (p["a"] + 1j * p["b"])
        return jnp.concatenate([found.real, found.imag], axis=1)

    return net(params, apply, (4,))


def branches():
    params = {"w": draw(2, 4, 4), "v": draw(3, 4, 4)}

    def apply(p, x):
        def one(row):
            return jax.lax.cond(
                row[0] > 0, lambda r: r @ p["w"], lambda r: jnp.tanh(r @ p["v"]), row
            )

        return jax.vmap(one)(x)

    return net(params, apply, (4,))


def custom_rule():
    @jax.custom_vjp
    def product(w, x):
        return x @ w

    product.defvjp(
        lambda w, x: (x @ w, (w, x)),
        lambda held, g: (2 * held[1].T @ g, g @ held[0].T),
    )
    return net({"w": draw(2, 4, 3)}, lambda p, x: product(p["w"], x), (4,))


def weight_norm():
    params = {"w": draw(2, 4, 3), "g": draw(3, 3)}

    def apply(p, x):
        norm = jnp.sqrt(jnp.sum(p["w"] ** 2, axis=0))
        return x @ (p["w"] * (p["g"] / norm)[None])

    return net(params, apply, (4,))


def output_bias():
    params = {"b": draw(2, OUTPUTS), "unused": draw(3, 2)}
    return (
        params,
        lambda p, x: x @ jnp.eye(OUTPUTS) + p["b"][None],
        draw(1, COUNT, OUTPUTS),
    )


def constant_output():
    params = {"b": draw(2, OUTPUTS)}

    def predict(p, x):
        return jnp.broadcast_to(jnp.sin(p["b"]), (x.shape[0], OUTPUTS))

    return params, predict, draw(1, COUNT, 2)


def same_weight_twice_in_a_scan():
    """Once as a start, read by rows, once as a constant."""

    def apply(p, x):
        def layer(h, row):
            return jnp.tanh(h @ p["w"] + row[None]), None

        return jax.lax.scan(layer, x, p["w"], reverse=True)[0]

    return net({"w": draw(2, 4, 4)}, apply, (4,))


def indexed_layers():
    """A scan over constant numbers of layers."""

    def apply(p, x):
        def layer(h, i):
            return jnp.tanh(h @ p["w"][i]), None

        return jax.lax.scan(layer, x, jnp.arange(3))[0]

    return net({"w": draw(2, 3, 4, 4)}, apply, (4,))


def clipped_lookup():
    """Numbers out of range name the last row."""
    params, _, tokens = embedding()

    def predict(p, x):
        rows = jnp.take(p["table"], x, axis=0, mode="clip")
        return head(jnp.tanh(rows) @ p["v"])

    return params, predict, tokens + 3


def absent_rows():
    """Numbers out of range read nothing."""
    params, _, tokens = embedding()

    def predict(p, x):
        rows = p["table"].at[x].get(mode="fill", fill_value=0)
        return head(jnp.tanh(rows) @ p["v"])

    return params, predict, tokens - 11


def real_weight_of_a_spectrum():
    def apply(p, x):
        y = jnp.einsum("nf,fo->no", jnp.fft.rfft(x, axis=1), p["w"])
        return jnp.concatenate([y.real, y.imag], axis=1)

    return net({"w": draw(2, 3, 4)}, apply, (4,))


def frozen():
    params = {"w": draw(2, 4, 3), "u": draw(3, 3, 3)}

    def apply(p, x):
        return jnp.tanh(x @ p["w"]) @ jax.lax.stop_gradient(p["u"])

    return net(params, apply, (4,))


def own_context():
    """Random bits of a setting that holds inside of the model alone."""

    def apply(p, x):
        with jax.threefry_partitionable(False):
            noise = jax.random.normal(jax.random.key(0), (4,))
        return jnp.tanh(x * noise[None]) @ p["w"]

    return net({"w": draw(2, 4, 3)}, apply, (4,))


def with_a_print():
    """An operation without results, and a kernel without outputs."""
    params = {"w": draw(2, 4, 3), "none": draw(3, 4, 0)}

    def apply(p, x):
        jax.debug.callback(lambda value: None, x)
        return jnp.concatenate([x @ p["w"], x @ p["none"]], axis=1)

    return net(params, apply, (4,))


KINDS = {
    **LOOKUPS,
    "own context": own_context,
    "with a print": with_a_print,
    "same weight twice in a scan": same_weight_twice_in_a_scan,
    "indexed layers": indexed_layers,
    "clipped lookup": clipped_lookup,
    "absent rows": absent_rows,
    "real weight of a spectrum": real_weight_of_a_spectrum,
    "frozen": frozen,
    "dense": dense,
    "transposed dense": transposed_dense,
    "convolution": lambda: convolution((5, 6, 2), (3, 2, 2, 3)),
    "strided": lambda: convolution(
        (6, 5, 2), (3, 3, 2, 3), window_strides=(2, 3), padding="VALID"
    ),
    "dilated": lambda: convolution((7, 6, 2), (2, 3, 2, 3), rhs_dilation=(2, 2)),
    "grouped": lambda: convolution((5, 5, 4), (3, 3, 2, 6), feature_group_count=2),
    "depthwise": lambda: convolution((5, 5, 3), (3, 3, 1, 6), feature_group_count=3),
    "one-dimensional": lambda: convolution((8, 2), (3, 2, 3)),
    "transposed convolution": transposed_convolution,
    "channels first": channels_first,
    "mixed axes": lambda: convolution(
        (4, 5, 6),
        (6, 3, 2, 2),
        layout=("NCHW", "OHWI", "NHCW"),
        feature_group_count=2,
        lhs_dilation=(1, 2),
        padding=((-1, 1), (2, -2)),
    ),
    "own patches": lambda: own_convolution("patches"),
    "own strided": lambda: own_convolution("patches", strides=(2, 2)),
    "own grouped": lambda: own_convolution("patches", (3, 3, 1, 4), groups=2),
    "own winograd": lambda: own_convolution("winograd"),
    "embedding": embedding,
    "tied embedding": tied_embedding,
    "used twice": used_twice,
    "low rank": low_rank,
    "merged low rank": merged_low_rank,
    "attention": attention,
    "experts": experts,
    "layer norm": lambda: from_module(
        lambda rngs: nnx.Sequential(
            nnx.LayerNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        ),
        (3, 4),
    ),
    "batch norm": lambda: from_module(
        lambda rngs: nnx.Sequential(
            nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        ),
        (4,),
    ),
    "group norm": lambda: from_module(
        lambda rngs: nnx.GroupNorm(4, num_groups=2, rngs=rngs), (3, 3, 4)
    ),
    "multi-head attention": lambda: from_module(lambda rngs: Attention(rngs), (4, 6)),
    "recurrence": recurrence,
    "learned start": learned_start,
    "scanned layers": scanned_layers,
    "nested scans": nested_scans,
    "shared and own weight": shared_and_own_weight,
    "spectral weights": spectral_weights,
    "branches": branches,
    "custom rule": custom_rule,
    "weight norm": weight_norm,
    "output bias": output_bias,
    "constant output": constant_output,
    "cnn": lambda: model("cnn", (6, 6, 2), width=3, hidden=4),
    "resnet9": lambda: model("resnet9", (12, 12, 2), widths=(2, 3, 3, 8)),
}


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(
            2,
            6,
            decode=False,
            dtype=jnp.float64,
            param_dtype=jnp.float64,
            rngs=rngs,
        )

    def __call__(self, values):
        return self.attention(values)
