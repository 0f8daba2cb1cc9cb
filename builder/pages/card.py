"""What do social networks show of a link to the site? A picture of its map, 1200 by 630 pixels.

Networks take PNG and no SVG. It is drawn without a browser, with the font inside Pillow (Aileron),
so that it is the same on every machine. That font has the characters of ASCII and little more:
accents are dropped, and a title that has no such form gives way to the name of the run.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from builder.pages.levels import Levels
from builder.pages.spans import plain
from builder.pages.views import RunView
from builder.records import WRITERS

SIZE = (1200, 630)
_MARGIN = 64
_PAPER, _INK, _SOFT, _EMPTY = "#14171b", "#e8e5de", "#a5abb4", "#23282f"
#: The orange steps of the pages in the dark; a cell without a value is empty.
_STEPS = (
    _EMPTY, "#33230f", "#4d3212", "#6b4414", "#8a5716", "#a66614", "#d0842a", "#f2a65a",
)  # fmt: skip
#: Where maps begin, how high they are, and how high a cell may be.
_TOP, _MAP, _CELL = 246, 270, 135

Grid = Sequence[Sequence[int | None]]
#: A map and what stands under it.
Panel = tuple[str, Grid]


def model_card(run: RunView) -> bytes:
    """The card of a model, as PNG: title, what it is of, and its map by singular value."""
    about = f"{len(run.own):,} directions that fine-tuning wrote into the weights"
    writers = sorted({item.row.hookpoint.writer for item in run.own}, reverse=True)
    panels = [(f"{writer}: layers by rank", map_of(run, (writer,))) for writer in writers]
    return _card(drawable(run.title, run.name), about, panels)


def site_card(runs: Sequence[RunView], title: str) -> bytes:
    """The card of the site, as PNG: its title and the maps of its first models."""
    many = f"{len(runs)} model{'' if len(runs) == 1 else 's'}"
    about = f"What did fine-tuning write into the weights? {many}"
    panels = [(drawable(run.title, run.name), map_of(run, WRITERS)) for run in runs[:3]]
    return _card(drawable(title, "weightatlas"), about, panels)


def drawable(text: str, instead: str) -> str:
    """The text in ASCII, accents dropped and hidden characters named; ``instead`` if that fails."""
    folded = "".join(
        character
        for character in unicodedata.normalize("NFKD", " ".join(plain(text).split()))
        if not unicodedata.combining(character)
    )
    for special, usual in {"⟦": "[", "⟧": "]", "’": "'", "–": "-", "—": "-"}.items():
        folded = folded.replace(special, usual)
    return folded if folded.isascii() and folded else instead


def map_of(run: RunView, writers: Sequence[str]) -> Grid:
    """Layers by writer and rank, each cell a step of its singular value; None where none is.

    The steps are those of all the run's singular values.
    """
    ranks = max((item.row.rank for item in run.own), default=-1) + 1
    levels = Levels.of([item.row.sigma or 0.0 for item in run.own])
    grid: list[list[int | None]] = [[None] * (ranks * len(writers)) for _ in range(run.n_layers)]
    for item in run.own:
        if item.row.hookpoint.writer in writers:
            column = writers.index(item.row.hookpoint.writer) * ranks + item.row.rank
            grid[item.row.hookpoint.layer][column] = levels.step(item.row.sigma)
    return grid


def _card(title: str, about: str, panels: Sequence[Panel]) -> bytes:
    image = Image.new("RGB", SIZE, _PAPER)
    draw = ImageDraw.Draw(image)
    width = SIZE[0] - 2 * _MARGIN
    draw.text((_MARGIN, 64), _fitting(draw, title, 68, width), _INK, ImageFont.load_default(68))
    draw.text((_MARGIN, 162), _fitting(draw, about, 34, width), _SOFT, ImageFont.load_default(34))
    shown = [panel for panel in panels if panel[1] and panel[1][0]]
    if shown:
        gap = 36
        each = (width - gap * (len(shown) - 1)) // len(shown)
        small = ImageFont.load_default(24)
        for index, (label, grid) in enumerate(shown):
            left = _MARGIN + index * (each + gap)
            bottom = _draw_map(draw, grid, left, each)
            draw.text((left, bottom + 14), _fitting(draw, label, 24, each), _SOFT, small)
    stream = io.BytesIO()
    # A palette has room for all that is drawn but the softest edges of letters.
    image.quantize(64).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _draw_map(draw: ImageDraw.ImageDraw, grid: Grid, left: float, width: float) -> float:
    """Draws a map and returns where it ends."""
    across, down = width / len(grid[0]), min(_CELL, _MAP / len(grid))
    line = 1 if min(across, down) > 4 else 0
    for y, row in enumerate(grid):
        for x, step in enumerate(row):
            x0, y0 = left + x * across, _TOP + y * down
            x1 = max(x0, left + (x + 1) * across - 1 - line)
            y1 = max(y0, _TOP + (y + 1) * down - 1 - line)
            draw.rectangle((x0, y0, x1, y1), _EMPTY if step is None else _STEPS[step])
    return _TOP + down * len(grid)


def _fitting(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    """The text, or as much of its beginning as fits into the width."""
    font = ImageFont.load_default(size)
    if draw.textlength(text[:400], font) <= width and len(text) <= 400:
        return text
    kept = text[:400]
    while kept and draw.textlength(f"{kept}...", font) > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}..."
