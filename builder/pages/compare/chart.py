"""How near do the directions of one model lie to those of another? Drawn over what chance gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from builder.pages.formats import fixed, whole

_WIDTH, _HEIGHT, _BINS = 560, 118, 56
_TOP, _FLOOR = 16, 96


def nearest_chart(sizes: Sequence[float], chance: Sequence[float], level: float) -> Markup:
    """Shares of directions by the |cosine| of their nearest, in bins over [0, 1].

    ``chance`` are those of controls that nothing wrote, as a line over the filled shape; both have
    the same scale. A dashed line stands at ``level``.
    """
    shapes = [_shares(values) for values in (sizes, chance)]
    top = max((float(shape.max()) for shape in shapes if len(shape)), default=1.0) or 1.0
    at = round(level * _WIDTH, 1)
    above = sum(size >= level for size in sizes)
    label = (
        f"nearest cosines of {whole(len(sizes))} directions, {whole(above)} of them at "
        f"{fixed(level, 2)} or more"
    )
    if len(chance):
        beyond = sum(size >= level for size in chance)
        label += f"; of {whole(len(chance))} controls {whole(beyond)}"
    path = _steps(shapes[0], top)
    drawn = f'<path class=area d="M0 {_FLOOR}{path}V{_FLOOR}Z"/>' if path else ""
    path = _steps(shapes[1], top)
    drawn += f'<path class=outline d="M0 {_FLOOR}{path}V{_FLOOR}"/>' if path else ""
    ticks = "".join(
        f'<text x="{x}" y="{_HEIGHT - 6}" class={anchor}>{text}</text>'
        for x, anchor, text in ((0, "s", "0"), (_WIDTH // 2, "m", "0.5"), (_WIDTH, "e", "1"))
    )
    side = "e" if level > 0.6 else "s"
    beside = at - 6 if level > 0.6 else at + 6
    # Every number and word in it is made here.
    return Markup(  # noqa: S704
        f'<svg class="plot reach" viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{label}">'
        f'{drawn}<path class=axis d="M0 {_FLOOR}H{_WIDTH}"/>'
        f'<path class=mean d="M{at} 4V{_FLOOR}"/>'
        f'<text class={side} x="{beside:.1f}" y=13>match from {fixed(level, 2)}</text>{ticks}</svg>'
    )


def _shares(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts, _ = np.histogram(np.minimum(values, 1.0), bins=_BINS, range=(0, 1))
    return counts / max(1, len(values))


def _steps(shares: np.ndarray[tuple[int], np.dtype[np.float64]], top: float) -> str:
    """Flat tops from left to right; empty where there is nothing to draw."""
    if not shares.any():
        return ""
    path = ""
    for at, share in enumerate(shares.tolist()):
        # The root, or the few that lie far out could not be seen beside the many that do not.
        y = round(_FLOOR - (share / top) ** 0.5 * (_FLOOR - _TOP))
        path += f"V{y}H{round((at + 1) * _WIDTH / _BINS)}"
    return path
