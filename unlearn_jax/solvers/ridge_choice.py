"""Which exact form of ridge regression is cheapest, from sizes and measured rates."""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from unlearn_jax.solvers.ridge import FORMS
from unlearn_jax.types import Batch

_SAMPLES = 3


class Rates(NamedTuple):
    """Description: what updates cost on this device.

    Attributes:
        features: Size f at which they were measured.
        fixed: Seconds of a request that do not depend on its rows, by form.
        work: Seconds for each unit of work that does, by form; see :func:`row_work`.
    """

    features: int
    fixed: dict[str, float]
    work: dict[str, float]


class Choice(NamedTuple):
    """Description: the cheapest form, and why.

    Attributes:
        form: A name in ``ridge.FORMS``.
        seconds: What a request is expected to cost, by form.
        crossover: Rows from which solving the Gram matrix anew is the cheaper one;
            infinite if never below f.
        reason: In a sentence.
    """

    form: str
    seconds: dict[str, float]
    crossover: float
    reason: str


def row_work(form: str, f: int, n: int | float) -> float:
    """Multiplications of a request of n rows, beside what it costs with none."""
    gram = 1.0 * f * f * n
    inverse = 3 * f * f * n + 4 * f * n * n + n**3 / 3
    return {"gram": gram, "inverse": inverse, "kept": gram + inverse}[form]


def default_rates(f: int) -> Rates:
    """Rates in units of one multiplication, where nothing was measured.

    A Cholesky factorisation runs at a third of the rate of a product, moving a number
    costs as much as 8 multiplications.
    """
    passes = 8.0 * f * f
    return Rates(
        f,
        {"gram": f**3 + 20 * passes, "inverse": 2 * passes, "kept": 30 * passes},
        {"gram": 1.0, "inverse": 1.0, "kept": 1.0},
    )


def measure_rates(
    f: int,
    k: int,
    *,
    few: int = 32,
    many: int | None = None,
    dtype: DTypeLike = jnp.float64,
    forms: tuple[str, ...] = ("gram", "inverse"),
) -> Rates:
    """Time a removal of few and of many rows in each form, in donated buffers.

    Args:
        f: Features.
        k: Outputs.
        few: Rows of the small request, above those that outer products serve.
        many: Rows of the large one; None: an eighth of f.
        dtype: Of the state.
        forms: Which to time.

    Returns:
        Rates; medians of three, after one to compile.

    Raises:
        ValueError: the requests are not of different size.

    Cost: four requests and a compilation for each form and size.
    """
    many = max(few + 1, f // 8) if many is None else many
    if not 0 < few < many:
        raise ValueError(f"expected 0 < few < many rows, got {few} and {many}")
    fixed, work = {}, {}
    for form in forms:
        low, high = (_seconds(form, f, k, n, dtype) for n in (few, many))
        slope = (high - low) / (row_work(form, f, many) - row_work(form, f, few))
        work[form] = max(slope, 0.0)
        fixed[form] = max(low - work[form] * row_work(form, f, few), 0.0)
    return Rates(f, fixed, work)


def choose_form(f: int, rows: int, *, rates: Rates | None = None) -> Choice:
    """The form with the cheapest requests of that many rows.

    The inverse form costs some f² for each row, the Gram form f³ / 3 whatever their
    number; see ``ridge_kept`` for both, where the error has to stay at rounding.

    Args:
        f: Features.
        rows: Typical rows of a request.
        rates: From :func:`measure_rates` at this f; None: counts of multiplications.

    Raises:
        ValueError: sizes below 1, or rates of another size.
    """
    if f < 1 or rows < 1:
        raise ValueError(f"expected at least 1 feature and row, got {f} and {rows}")
    known = default_rates(f) if rates is None else rates
    if not {"gram", "inverse"} <= known.fixed.keys():
        raise ValueError(
            f"the rates are of {', '.join(known.fixed)}; measure gram and inverse too"
        )
    if known.features != f:
        raise ValueError(
            f"the rates were measured at {known.features} features, not {f}"
        )
    seconds = {form: expected_seconds(known, form, rows) for form in known.fixed}
    form = min(seconds, key=lambda name: seconds[name])
    place = crossover(known)
    unit = "multiplications" if rates is None else "seconds"
    told = ", ".join(f"{name} {value:.2g}" for name, value in seconds.items())
    reason = (
        f"{form}: {rows} rows at {f} features are expected to cost {told} {unit}; from "
        f"{place:.0f} rows on the Gram form is the cheaper of the two"
    )
    return Choice(form, seconds, place, reason)


def expected_seconds(rates: Rates, form: str, rows: int | float) -> float:
    """Of a request, in the unit of the rates."""
    return rates.fixed[form] + rates.work[form] * row_work(form, rates.features, rows)


def crossover(rates: Rates) -> float:
    """Rows at which the Gram form overtakes the inverse form; infinite above f."""

    def ahead(rows: int | float) -> float:
        inverse = expected_seconds(rates, "inverse", rows)
        return inverse - expected_seconds(rates, "gram", rows)

    low, high = 1.0, float(rates.features)
    if ahead(high) < 0:
        return math.inf
    if ahead(low) >= 0:
        return 1.0
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if ahead(middle) < 0 else (low, middle)
    return high


def _seconds(form: str, f: int, k: int, n: int, dtype: DTypeLike) -> float:
    """Median time of removals, each of rows that were learnt."""
    random = np.random.default_rng(0)
    inputs = np.round(random.random((n, f)) * 2.0**10) / 2.0**10
    rows = jax.device_put(
        Batch(
            jnp.asarray(inputs, dtype),
            jnp.asarray(random.integers(0, 2, (n, k)), dtype),
            jnp.ones(n, dtype),
        )
    )
    options: dict[str, Any] = {} if form == "inverse" else {"slices": 1}
    chosen = FORMS[form]
    add = jax.jit(lambda s, r: chosen.add(s, r, **options), donate_argnums=0)
    remove = jax.jit(lambda s, r: chosen.remove(s, r, **options), donate_argnums=0)
    state = add(chosen.start(f, k, l2=float(f), dtype=dtype), rows)
    taken = []
    for _ in range(_SAMPLES + 1):
        state = jax.block_until_ready(state)
        start = time.perf_counter()
        state = jax.block_until_ready(remove(state, rows))
        taken.append(time.perf_counter() - start)
        state = add(state, rows)
    return float(np.median(taken[1:]))
