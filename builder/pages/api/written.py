"""How is a value written as JSON? Strictly, in ASCII, and always as the same bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: Significant digits of a number.
DIGITS = 4


def without_nothing(value: Any) -> Any:
    """``value`` without keys, however deep, whose value is None, empty text or an empty collection.

    Elements of lists stay as they are, and so do zeros and False.
    """
    if isinstance(value, Mapping):
        held = {key: without_nothing(item) for key, item in value.items()}
        return {key: item for key, item in held.items() if not _is_nothing(item)}
    if isinstance(value, (list, tuple)):
        return [without_nothing(item) for item in value]
    return value


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def as_json(value: object, *, indent: int | None = None) -> bytes:
    """``value`` as strict JSON (no NaN) in plain ASCII, without spaces unless indented.

    Characters beyond ASCII are escaped: none is hidden, and half a surrogate pair breaks nothing.
    Raises ValueError for a number that is not finite.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, ensure_ascii=True, allow_nan=False, separators=separators, indent=indent
    )
    return f"{text}\n".encode("ascii")


def number(value: float | None) -> float | None:
    """A number as the files have it; null for one that is not there or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return rounded(value)


def rounded(value: float) -> float:
    """A finite number to DIGITS significant digits, without a negative zero."""
    found = float(f"{value:.{DIGITS}g}")
    if math.isinf(found):  # rounded beyond the largest number there is
        return value
    return 0.0 if found == 0 else found


def interval(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    """Both ends of an interval; null where one of them is not finite."""
    if pair is None:
        return None
    low, high = number(pair[0]), number(pair[1])
    return None if low is None or high is None else (low, high)
