"""Tables that are looked up in every usual way of writing it."""

import jax
import jax.numpy as jnp
from kind_parts import draw, head, net

TOKENS = jnp.asarray(
    [[0, 3, 3, 6], [1, 1, 1, 1], [2, 5, 0, 2], [6, 4, 3, 2], [0, 0, 5, 5]]
)


def scaled_embedding():
    """Rows times the root of their width, which the program computes."""

    def predict(p, x):
        return head(jnp.tanh((p["table"] * jnp.sqrt(jnp.float64(4)))[x]))

    return {"table": draw(2, 7, 4)}, predict, TOKENS


def scaled_dense():
    """A weight over a number, as for equal learning rates in all layers."""
    params = {"v": draw(3, 3, 2), "w": draw(2, 4, 3)}
    return net(params, lambda p, x: jnp.tanh(x @ (p["w"] / 3)) @ (2 * p["v"]), (4,))


def scaled_in_a_scan():
    """By one number for all steps outside, by another for each step inside."""
    params = {"u": draw(3, 3, 4, 4), "w": draw(2, 4, 4)}

    def apply(p, x):
        def layer(h, row):
            own, number = row
            return jnp.tanh(h @ own + h @ (p["w"] * number)), None

        return jax.lax.scan(layer, x, (p["u"] * 0.5, jnp.array([1.0, 2.0, 3.0])))[0]

    return net(params, apply, (4,))


def scaled_by_another_parameter():
    params = {"scale": draw(3), "table": draw(2, 7, 4)}

    def predict(p, x):
        return head(jnp.tanh((p["table"] * p["scale"])[x]))

    return params, predict, TOKENS


def columns_of_a_table():
    def predict(p, x):
        return head(jnp.tanh(jnp.moveaxis(jnp.take(p["table"], x, axis=1), 0, -1)))

    return {"table": draw(2, 4, 7)}, predict, TOKENS


def middle_axis_of_a_table():
    def predict(p, x):
        rows = jnp.take(p["table"], x, axis=1, mode="clip")
        return head(jnp.tanh(jnp.moveaxis(rows, 0, -1)))

    return {"table": draw(2, 2, 7, 3)}, predict, TOKENS + 2


def one_token_at_a_time():
    """One row by its number, mapped over tokens and examples, as Equinox does."""

    def predict(p, x):
        return head(jnp.tanh(jax.vmap(jax.vmap(lambda t: p["table"][t]))(x)))

    return {"table": draw(2, 7, 4)}, predict, TOKENS


def one_token_out_of_range():
    """A single row past the end is the last one."""

    def predict(p, x):
        def one(token):
            return jax.lax.dynamic_slice(p["table"], (token, 3), (1, 4))

        return head(jnp.tanh(jax.vmap(jax.vmap(one))(x)))

    return {"table": draw(2, 7, 4)}, predict, TOKENS + 2


def part_of_a_row():
    """Windows that are no whole rows."""

    def predict(p, x):
        def one(token):
            return jax.lax.dynamic_slice(p["table"], (token, token), (1, 2))

        return head(jnp.tanh(jax.vmap(jax.vmap(one))(x)))

    return {"table": draw(2, 7, 4)}, predict, TOKENS


LOOKUPS = {
    "scaled embedding": scaled_embedding,
    "scaled dense": scaled_dense,
    "scaled in a scan": scaled_in_a_scan,
    "scaled by another parameter": scaled_by_another_parameter,
    "columns of a table": columns_of_a_table,
    "middle axis of a table": middle_axis_of_a_table,
    "one token at a time": one_token_at_a_time,
    "one token out of range": one_token_out_of_range,
    "part of a row": part_of_a_row,
}
