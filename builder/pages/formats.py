"""How are numbers written on pages? Short, aligned, with a true minus sign and never a ``-0``."""

from __future__ import annotations

import math
import re

#: Stands where a number does not exist.
NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_SPACE = "\N{NO-BREAK SPACE}"
_LOCAL = re.compile(r"^(?:/|~|[A-Za-z]:[\\/]|\\\\)")


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def fixed(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals."""
    if value is None or _missing(value):
        return NONE
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals and always a sign, but for zero."""
    text = fixed(value, digits)
    if text == NONE or text.startswith(_MINUS) or float(text) == 0:
        return text
    return f"+{text}"


def short(value: float | None, digits: int = 3) -> str:
    """``value`` with about ``digits`` significant digits, without an exponent where it is short."""
    if value is None or _missing(value):
        return NONE
    if value == 0:
        return "0"
    # The size is that of the rounded value: 9.999 in two digits is 10, not 10.0.
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    size = int(exponent)
    if size < -4 or size >= 7:
        return f"{mantissa}e{size}".replace("-", _MINUS)
    return f"{value:.{max(0, digits - 1 - size)}f}".replace("-", _MINUS)


def ranged(value: float | None, interval: tuple[float, float] | None) -> str:
    """A score with two decimals and its interval, as in ``0.95 (0.15–1.00)``."""
    if interval is None or _missing(value):
        return fixed(value, 2)
    low, high = interval
    return f"{fixed(value, 2)} ({fixed(low, 2)}–{fixed(high, 2)})"


def whole(value: int | None) -> str:
    """A count, in groups of three digits that do not break over lines."""
    return NONE if value is None else f"{value:,}".replace(",", _SPACE).replace("-", _MINUS)


def size(value: int) -> str:
    """Bytes in the largest decimal unit that they reach, with a decimal below ten."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        # What would be rounded to a thousand of one unit is one of the next.
        if value >= factor * 0.9995:
            count = value / factor
            return f"{count:.{1 if count < 9.95 else 0}f}{_SPACE}{unit}"
    return f"{value}{_SPACE}bytes"


def share(value: float | None) -> str:
    """A share of one as percent, with a decimal below ten."""
    if value is None or _missing(value):
        return NONE
    percent = 100 * value
    if 0 < percent < 0.1:
        return f"<{_SPACE}0.1{_SPACE}%"
    digits = 0 if percent >= 10 or percent == 0 else 1
    return f"{percent:.{digits}f}{_SPACE}%"


def passed(value: float | None) -> str:
    """A share of one as whole percent, cut and not rounded: 94.8% have not reached 95%."""
    if value is None or _missing(value):
        return NONE
    # A hair more, so that 0.29 does not become 28%.
    return f"{int(100 * value + 1e-9)}{_SPACE}%"


def money(value: float | None) -> str:
    """US dollars: two decimals from a dollar on, else about two digits; a dash for no price."""
    if value is None or _missing(value):
        return NONE
    if value >= 1 or value == 0:
        return f"${value:,.2f}".replace(",", _SPACE)
    return f"${short(max(value, 0.0001), 2)}" if value >= 0.0001 else "<\N{NO-BREAK SPACE}$0.0001"


def place(text: str) -> str:
    """A path or a hub id as the public may see it: of a local path only its last two parts.

    Pages are made to be published, and where a file lies on somebody's machine is nobody's
    business and no evidence either.
    """
    if not _LOCAL.match(text):
        return text
    parts = [part for part in re.split(r"[\\/]+", text) if part not in ("", "~")]
    return "\N{HORIZONTAL ELLIPSIS}/" + "/".join(parts[-2:])


def bar_class(part: float | None) -> str:
    """The class of a cell that shows a share from 0 to 1 as a bar behind it: ``w0`` to ``w20``."""
    size = 0.0 if part is None or _missing(part) else min(1.0, max(0.0, part))
    # A share that is there at all is to be seen.
    return f"w{max(1, round(20 * size)) if size else 0}"


_SPACES = " \n\t"
#: White space as pages show it where it is to be seen.
SEEN_SPACES = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def spaced(text: str) -> str:
    """A token's text, with the white space around it, or all it has, to be seen."""
    inner = text.strip(_SPACES)
    before, _, after = text.partition(inner) if inner else (text, "", "")
    return f"{before.translate(SEEN_SPACES)}{inner}{after.translate(SEEN_SPACES)}"


def name_alone(text: str) -> str:
    """A path or a hub id as files for others have it: of a local path its last part alone.

    The part before it may be a user's name. What :func:`place` has cut counts as a local path.
    """
    shown = place(text)
    return shown.rpartition("/")[2] if shown.startswith("\N{HORIZONTAL ELLIPSIS}/") else text
