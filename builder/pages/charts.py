"""How do numbers become pictures? Inline SVG without script; every style comes from the page's CSS.

Attributes hold numbers made here and nothing from outside, so nothing needs escaping but titles.
Coordinates are rounded to a tenth of a unit: pages are many and bytes count.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from builder.pages.formats import fixed, short, whole
from builder.records import HISTOGRAM_BINS, Score

_WIDTH, _HEIGHT = 560.0, 96.0
#: Columns of a histogram at most, and the letters of their heights, lowest first.
COLUMNS = 90
LEVELS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
#: Singular values that are drawn of a spectrum; a full one may have thousands.
DRAWN = 64


def _number(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _outline(heights: Sequence[float], step: float, bottom: float) -> str:
    """The path of a filled step curve: one flat top per height, closed along the bottom.

    In whole units and relative to the point before, which takes half the letters.
    """
    path = f"M0 {round(bottom)}"
    x, y = 0, round(bottom)
    for at, height in enumerate([*heights, bottom]):
        if round(height) != y:
            edge = min(round(at * step), round(_WIDTH))  # the last column may be cut
            path += f"{f'h{edge - x}' if edge != x else ''}v{round(height) - y}"
            x, y = edge, round(height)
    return f"{path}H{round(len(heights) * step)}V{round(bottom)}Z"


def histogram_heights(
    counts: npt.NDArray[np.int64], extent: tuple[float, float]
) -> tuple[float, float, str]:
    """Token counts by activation over ``extent``: (least, greatest, heights).

    Heights are logarithmic, one letter of LEVELS a column, COLUMNS of them at most. The page's
    script draws them: drawn here they would be a tenth of the page.
    """
    first = int(np.clip(math.floor((extent[0] + 1) / 2 * HISTOGRAM_BINS), 0, HISTOGRAM_BINS - 1))
    last = int(np.clip(math.floor((extent[1] + 1) / 2 * HISTOGRAM_BINS), first, HISTOGRAM_BINS - 1))
    kept = counts[first : last + 1]
    # A column takes several bins where there are more of them than the eye tells apart.
    joint = -(-len(kept) // COLUMNS)
    columns = np.add.reduceat(kept, range(0, len(kept), joint))
    sizes = np.log10(1 + columns)
    # What is there at all is to be seen.
    steps = np.ceil(sizes / (sizes.max() or 1.0) * (len(LEVELS) - 1)).astype(int)
    low, high = (2 * edge / HISTOGRAM_BINS - 1 for edge in (first, first + joint * len(columns)))
    return round(low, 6), round(high, 6), "".join(LEVELS[step] for step in steps.tolist())


def spectrum(
    sigmas: npt.NDArray[np.float32], kept: int, top: float, floors: tuple[float, float]
) -> Markup:
    """The first DRAWN singular values as bars up to ``top``; kept directions' are stronger.

    ``floors`` are lines across: what shuffled entries give, dashed, and rounding, dotted. A floor
    that is not known (NaN) has none.
    """
    shown = sigmas[:DRAWN].tolist()
    width, height, n = 150.0, 52.0, max(1, len(shown))
    step = width / n
    gap = 1.0 if step > 3 else 0.0
    shapes = {"kept": "", "rest": ""}
    for rank, sigma in enumerate(shown):
        tall = height * min(1.0, sigma / top) if top > 0 else 0.0
        tall = max(tall, 0.5)
        shapes["kept" if rank < kept else "rest"] += (
            f"M{_number(rank * step)} {_number(height)}v-{_number(tall)}"
            f"h{_number(step - gap)}v{_number(tall)}z"
        )
    first = fixed(float(sigmas[0]), 3) if len(sigmas) else "none"
    label = f"{len(sigmas)} singular values, the first {first}"
    lines = ""
    for name, floor in zip(("shuffled", "rounding"), floors, strict=True):
        if math.isfinite(floor) and top > 0:
            path = f"M0 {_number(height - height * min(1.0, floor / top))}h{_number(width)}"
            # A paler line below keeps it apart from the bars it crosses.
            lines += (
                f'<path class="under {name}" d="{path}"/><path class="floor {name}" d="{path}"/>'
            )
            label += f", {name} floor {short(floor)}"
    return Markup(
        f'<svg class="plot spark" viewBox="0 0 {_number(width)} {_number(height)}" role=img '
        f'aria-label="{label}" preserveAspectRatio=none>'
        + "".join(f'<path class={name} d="{path}"/>' for name, path in shapes.items() if path)
        + f"{lines}</svg>"
    )


def band(
    documents: Sequence[int],
    low: Sequence[float],
    middle: Sequence[float],
    high: Sequence[float],
    n: int,
) -> Markup:
    """Quartiles of ``n`` poles' extremes over growing shares of the corpus, from zero up.

    In standard deviations from the mean: the middle as a line, the outer ones as a band.
    """
    width, floor, edge = _WIDTH, 130.0, 34.0
    top = max(high) * 1.08 or 1.0
    first, last = math.log2(max(1, documents[0])), math.log2(max(2, documents[-1]))

    def at(share: int, value: float) -> str:
        part = (math.log2(max(1, share)) - first) / (last - first or 1.0)
        return f"{round(edge + part * (width - edge - 8))} {round(floor * (1 - value / top))}"

    lines = [
        [at(share, value) for share, value in zip(documents, values, strict=True)]
        for values in (low, middle, high)
    ]
    step = _tick(top)
    grid = "".join(
        f'<path class=grid d="M{_number(edge)} {_number(floor * (1 - index * step / top))}H560"/>'
        f'<text class=s x=0 y="{_number(floor * (1 - index * step / top) + 4)}">'
        f"{short(index * step, 2)}</text>"
        for index in range(int(top / step + 1e-6) + 1)
    )
    label = (
        f"extremes of {whole(n)} poles in standard deviations from the mean: in "
        f"{whole(documents[0])} documents half lie between {fixed(low[0], 1)} and "
        f"{fixed(high[0], 1)}, in {whole(documents[-1])} between {fixed(low[-1], 1)} and "
        f"{fixed(high[-1], 1)}"
    )
    return Markup(
        f'<svg class="plot band" viewBox="0 -8 560 162" role=img aria-label="{label}">{grid}'
        f'<path class=spread d="M{"L".join([*lines[0], *reversed(lines[2])])}Z"/>'
        f'<path class=line d="M{"L".join(lines[1])}"/>'
        f'<text class=s x="{_number(edge)}" y=150>{whole(documents[0])}</text>'
        f"<text class=e x=560 y=150>{whole(documents[-1])} documents</text></svg>"
    )


def dots(
    groups: Sequence[tuple[str, str, Sequence[float]]], unit: str, *, high: float | None = None
) -> Markup:
    """Values from 0 to ``high`` (a little beyond the largest, if not given) as dots, a row a group.

    Groups are (name, class, values); names, classes and ``unit`` are ours. They stand one below
    another, so that what chance gives can be compared by eye. Where a column would grow out of its
    row, a dot of that group stands for several values, and says for how many.
    """
    everything = [value for _, _, values in groups for value in values]
    if not everything:
        return Markup("")
    width, row, names = 560.0, 66.0, 20.0
    top = high or max(everything) * 1.03 or 1.0

    def x(value: float) -> float:
        return value / top * (width - 16) + 8

    def columns_of(values: Sequence[float]) -> Counter[int]:
        return Counter(round(x(value) / 5) for value in values)

    levels = int((row - names - 10) / 5) + 1

    def path_of(columns: Counter[int], each: int, bottom: float) -> str:
        return "".join(
            f"M{_number(column * 5.0)} {_number(bottom - 4 - level * 5.0)}h0"
            for column, count in sorted(columns.items())
            for level in range(-(-count // each))
        )

    stacks = [columns_of(values) for _, _, values in groups]
    each = [-(-max(stack.values(), default=1) // levels) for stack in stacks]
    tall = row * len(groups)
    step = _tick(top)
    ticks = ""
    for index in range(int(top / step + 1e-6) + 1):
        at = _number(x(index * step))
        ticks += (
            f'<path class=grid d="M{at} 0V{_number(tall)}"/>'
            f'<text x="{at}" y="{_number(tall + 16)}">{short(index * step, 2)}</text>'
        )
    rows = "".join(
        f'<path class=axis d="M0 {_number(row * (at + 1))}H{_number(width)}"/>'
        f'<text class=s x=0 y="{_number(row * at + 17)}">{name}'
        f"{f' (a dot for up to {each[at]})' if each[at] > 1 else ''}</text>"
        f'<path class="dots {kind}" d="{path_of(stacks[at], each[at], row * (at + 1))}"/>'
        for at, (name, kind, _) in enumerate(groups)
    )
    label = "; ".join(
        f"{name}: {len(values)}, up to {short(max(values, default=0), 3)} {unit}"
        for name, _, values in groups
    )
    return Markup(
        f'<svg class="plot tails" viewBox="0 0 {_number(width)} {_number(tall + 20)}" role=img '
        f'aria-label="{label}">{ticks}{rows}</svg>'
    )


def place_among(controls: Sequence[float], score: Score) -> Markup:
    """A label's F1 with its interval over those of controls' poles, as heights, and of shuffles.

    All from 0 to 1. Empty without an F1.
    """
    if score.f1 is None:
        return Markup("")
    width, height = _WIDTH, 40.0
    area = f'<path class=area d="{_heights(tuple(controls), height)}"/>' if controls else ""
    label = f"F1 {fixed(score.f1, 2)}"
    marks = ""
    if score.chance:
        low, high = score.chance
        size = _number(max(1.0, (high - low) * width))
        marks += f'<rect class=shuffles x="{_number(low * width)}" y=35 width="{size}" height=5 />'
        label += f"; shuffled verdicts {fixed(low, 2)} to {fixed(high, 2)}"
    if score.f1_interval:
        low, high = score.f1_interval
        marks += f'<path class=span d="M{_number(low * width)} 14H{_number(high * width)}"/>'
        label += f"; interval {fixed(low, 2)} to {fixed(high, 2)}"
    if controls:
        label += f"; {len(controls)} poles of controls up to {fixed(max(controls), 2)}"
    spot = f"M{_number(score.f1 * width)} 14h0"
    return Markup(
        f'<svg class="plot among" viewBox="-6 2 572 40" role=img aria-label="{label}">{area}'
        f'<path class=axis d="M0 {_number(height)}H{_number(width)}"/>{marks}'
        f'<path class=halo d="{spot}"/><path class=own d="{spot}"/></svg>'
        # Letters in the drawing would shrink with it.
        "<p class=ends aria-hidden=true><span>0</span><span>F1</span><span>1</span></p>"
    )


@lru_cache(maxsize=64)
def _heights(controls: tuple[float, ...], height: float) -> str:
    """The outline of how many controls reach which F1; the same for all labels of a scorer."""
    bins = 20
    counts, _ = np.histogram(controls, bins=bins, range=(0, 1))
    top = max(1, int(counts.max()))
    return _outline([height - 14 * n / top for n in counts.tolist()], _WIDTH / bins, height)


def _tick(extent: float) -> float:
    """A round distance between ticks that gives about six of them."""
    rough = extent / 6 if extent > 0 else 1.0
    size: float = 10.0 ** math.floor(math.log10(rough))
    return next(size * step for step in (1, 2, 5, 10) if size * step >= rough)


def bar(parts: Sequence[tuple[str, float]], label: str) -> Markup:
    """A stacked horizontal bar; parts are (class, share of the whole), ``label`` names them."""
    x, rects = 0.0, ""
    for name, size in parts:
        width = max(0.0, min(1.0, size)) * 100
        if width:
            rects += f'<rect class={name} x="{x:.2f}" width="{width:.2f}" height=6 />'
        x += width
    return Markup(
        '<svg class="plot bar" viewBox="0 0 100 6" preserveAspectRatio=none role=img '
    ) + (
        Markup('aria-label="{}">').format(label)
        + Markup(f"<rect class=rest width=100 height=6 />{rects}</svg>")
    )
