"""Numbers as people read them: two significant digits of the error, no more."""

import math
import re
from typing import Any

NO_APPLICATION = "\N{EN DASH}"
ONE_SEED = "± ?"

_DIGITS = 2
_MOST_DECIMALS = 6
_NOISE = 1e-9
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(
    r"[+-]?(\d+(\.\d+)?(e[+-]?\d+)?|inf|nan)( [\[±][-+\w., ?\[\]]*)?", re.ASCII
)


def mean_and_error(mean: float, error: float) -> str:
    """``91.24 ± 0.35``; ``± ?`` where one seed tells nothing, ``± 0`` if all agree."""
    if not math.isfinite(mean):
        return str(mean)
    if not math.isfinite(error):
        return f"{plain(mean)} {ONE_SEED}"
    if error <= _NOISE * abs(mean):
        return f"{plain(mean)} ± 0"
    scale, suffix = _scale(mean, error)
    decimals = _decimals(error / scale)
    both = f"{_fixed(mean / scale, decimals)} ± {_fixed(error / scale, decimals)}"
    return f"({both}){suffix}" if suffix else both


def interval(mean: float, low: float, high: float) -> str:
    """``-1.2 [-2.3, -0.1]``; digits by the half-width, ``[?, ?]`` for one seed."""
    if not math.isfinite(mean):
        return str(mean)
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{plain(mean, signed=True)} [?, ?]"
    half = (high - low) / 2
    scale, suffix = _scale(mean, low, high)
    exact = half <= _NOISE * abs(mean)
    decimals = _three_digits(mean / scale) if exact else _decimals(half / scale)
    if max(abs(low), abs(high)) < 1000:
        decimals = max(decimals, 0)
    ends = [_fixed(end / scale, decimals, signed=True) for end in (mean, low, high)]
    text = f"{ends[0]} [{ends[1]}, {ends[2]}]"
    return f"({text}){suffix}" if suffix else text


def floor(difference: float, half_width: float) -> str:
    """``|Δ| 2.7 [-3.9, +3.9]``; without the interval for fewer than two oracles."""
    text = f"|Δ| {plain(difference)}"
    if not math.isfinite(half_width):
        return text
    return f"{text} [{plain(-half_width)}, {plain(half_width, signed=True)}]"


def plain(number: float, *, signed: bool = False) -> str:
    """Three significant digits, all digits before the point."""
    if not math.isfinite(number):
        return str(number)
    scale, suffix = _scale(number)
    rest = number / scale
    return _fixed(rest, _three_digits(rest), signed=signed) + suffix


def csv_cell(value: Any) -> Any:
    """A value for a CSV file: text that would begin a formula gets an apostrophe.

    Spreadsheets run what begins with ``=``, ``+``, ``-``, ``@`` or a tab. Numbers stay
    numbers, with a sign and an interval too.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"


def _scale(*numbers: float) -> tuple[float, str]:
    """A power of ten to take out where the digits alone would be unreadable."""
    largest = max(abs(number) for number in numbers)
    if largest == 0 or 1e-4 <= largest < 1e7:
        return 1.0, ""
    exponent = math.floor(math.log10(largest))
    return 10.0**exponent, f"e{exponent}"


def _three_digits(number: float) -> int:
    if number == 0:
        return 2
    return max(2 - math.floor(math.log10(abs(number))), 0)


def _decimals(error: float) -> int:
    """Decimal places that show two significant digits; negative left of the point."""
    leading = math.floor(math.log10(error))
    if round(error, _DIGITS - 1 - leading) >= 10.0 ** (leading + 1):
        leading += 1  # 0.0996 reads 0.10, not 0.100
    return min(_DIGITS - 1 - leading, _MOST_DECIMALS)


def _fixed(number: float, decimals: int, *, signed: bool = False) -> str:
    rounded = round(number, decimals) + 0.0  # no negative zero
    sign = "+" if signed and rounded != 0 else ""
    return f"{rounded:{sign}.{max(decimals, 0)}f}"
