"""Models with made-up labels, for benches of search: seeded, of any size, no list of words needed.

Words are made of syllables and drawn by a Zipf law, as words are: a few in nearly every label, most
in hardly any. Labels have 3 to 26 words, 12 on average, and 3 to 8 keywords, half of them from the
label; both poles of every direction are labelled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builder.pages import links
from builder.pages.label_view import Answer, PoleView, ScoreView
from builder.pages.peaks_view import PeakToken, PolePeaks
from builder.pages.views import DirectionView, RunView
from builder.records import POLES, WRITERS, Hookpoint, Label, Pole, Score
from builder.store import DirectionRow

WORDS, LAYERS = 10_000, 32
_ONSETS = [
    *"bcdfghjklmnprstvwz",
    "br",
    "ch",
    "cl",
    "cr",
    "dr",
    "fl",
    "gr",
    "pl",
    "pr",
    "sh",
    "st",
    "tr",
]
_VOWELS = [*"aeiou", "ai", "ea", "ee", "ou", "oo"]
_CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "mp", "ng", "st", "ck"]


def made_up_words(rng: np.random.Generator) -> list[str]:
    """WORDS different words, the commonest first; common ones are short, as in any language."""
    found: dict[str, None] = {}
    while len(found) < WORDS:
        syllables = 1 + int(rng.poisson(0.3 + 1.5 * min(1.0, len(found) / 1000)))
        parts = [
            str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + str(rng.choice(_CODAS))
            for _ in range(min(syllables, 5))
        ]
        found["".join(parts)] = None
    return list(found)


def made_up_run(name: str, directions: int, rng: np.random.Generator, words: list[str]) -> RunView:
    """A model with so many directions."""
    weights = 1 / np.arange(2, len(words) + 2)
    weights /= weights.sum()
    lengths = np.clip(np.rint(rng.gamma(6.0, 2.0, 2 * directions)), 3, 26).astype(int)
    drawn = iter(rng.choice(len(words), int(lengths.sum()) + 8 * directions * 26, p=weights))

    def some(n: int) -> list[str]:
        return [words[next(drawn)] for _ in range(n)]

    items = []
    per_matrix = -(-directions // (LAYERS * len(WRITERS)))
    for at in range(directions):
        matrix, rank = divmod(at, per_matrix)
        layer, writer = divmod(matrix, len(WRITERS))
        place = Hookpoint(layer, WRITERS[writer])
        key = f"L{layer:02d}.{place.writer}.u{rank:02d}"
        poles: dict[Pole, PoleView] = {}
        for end, pole in enumerate(POLES):
            text = some(int(lengths[2 * at + end]))
            n = int(rng.integers(3, 9))
            keywords = (*(str(word) for word in rng.choice(text, n // 2)), *some(n - n // 2))
            label = Label(key, pole, "made up", " ".join(text), keywords=keywords)
            f1 = float(rng.beta(2, 3))
            score = Score(
                key, pole, "made up", "detection", "made up", " ".join(text), f1, f1,
                f1_interval=(0.8 * f1, 1 - 0.8 * (1 - f1)),
            )  # fmt: skip
            poles[pole] = PoleView(
                pole, (Answer("made up", label, None, (), (ScoreView(score, 0.99, 64),)),)
            )
        promoted, suppressed = (tuple((f" {word}", 2.0) for word in some(8)) for _ in range(2))
        row = DirectionRow(
            at, key, "", place, rank, "delta", float(rng.gamma(2.0)), 0.01, 0.0, promoted,
            suppressed, None, (), (), (),
        )  # fmt: skip
        file = links.file_name(key)
        items.append(
            DirectionView(row, file, links.direction_page(name, file), "", poles, (), None)
        )
    return RunView(
        folder=Path(name), name=name, title=f"Made-up model {name}", base=None, tuned=None,
        base_revision=None, tuned_revision=None, method="delta", how="", d_model=None,
        n_layers=LAYERS, facts={}, settings={}, corpus={}, versions={}, directions=tuple(items),
        spectra=(), counts=(),
    )  # fmt: skip


def made_up_peaks(
    run: RunView, rng: np.random.Generator, words: list[str]
) -> dict[tuple[str, Pole], PolePeaks]:
    """What the poles of a run peak on: one word mostly, and some more."""
    found = {}
    for item in run.directions:
        for pole in POLES:
            numbers = rng.integers(0, len(words), 6)
            counts = (10, 4, 2, 2, 1, 1)
            tokens = (PeakToken(words[i], n, 0.3) for i, n in zip(numbers, counts, strict=True))
            found[item.row.id, pole] = PolePeaks(20, tuple(tokens))
    return found
