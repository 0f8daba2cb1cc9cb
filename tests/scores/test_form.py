"""The form of a text says nothing of its truth: where it begins, how long it is, what is marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from builder.records import ACTIVATION_SCALE, STRATA, Example, Window
from builder.scores.fuzzing import fuzzing_texts
from builder.scores.items import Pool, make_pool
from tests.labels.making import example_of
from tests.scores.conftest import Organism
from tests.scores.form import area, form_of, told_apart
from tests.scores.making import HASH, ID, peaks_of, sample_of

ALL = dict.fromkeys(STRATA, 10**6)
#: Tokens kept on either side of a peak.
KEPT = 48
N = 1200

Place = Callable[[np.random.Generator, int], int]


def _anywhere(rng: np.random.Generator, n: int) -> int:
    return int(rng.integers(n))


def _near_an_end(rng: np.random.Generator, n: int) -> int:
    near = int(rng.integers(min(4, n)))
    return near if rng.random() < 0.5 else n - 1 - near


def _document(rng: np.random.Generator) -> list[str]:
    """Shorter than a stretch, than a window, or longer: each a third."""
    low, high = ((8, KEPT + 1), (KEPT + 1, 2 * KEPT + 2), (2 * KEPT + 2, 400))[rng.integers(3)]
    words = [f" w{rng.integers(10**6)}" for _ in range(rng.integers(low, high))]
    return [words[0][1:].upper(), *words[1:]]


def _window(tokens: list[str], start: int, stop: int, doc_id: int) -> Window:
    own = tokens[start:stop]
    ends = np.cumsum([len(token) for token in own]).astype(np.uint32)
    return Window(doc_id, "made up", start, "".join(own), ends)


def _example(rng: np.random.Generator, at: int, place: Place) -> Example:
    """As a scan keeps it: the window around the peak, cut off where the document ends."""
    tokens = _document(rng)
    peak = place(rng, len(tokens))
    start = max(0, peak - KEPT)
    window = _window(tokens, start, min(peak + KEPT + 1, len(tokens)), 10_000 + at)
    activations = np.zeros(len(window.token_ends), dtype=np.int16)
    for token in (peak - start + step for step in (-5, -1, 0)):
        if token >= 0:
            activations[token] = round(0.5 * ACTIVATION_SCALE)
    return dataclasses.replace(
        example_of("x", 0, place=at), direction=ID, value=0.5, window=window, peak=peak - start,
        activations=activations, roles=np.zeros(len(activations), dtype=np.uint8),
    )  # fmt: skip


def _at_random(rng: np.random.Generator, at: int) -> Window:
    """As a scan samples it: as many tokens as a window has, from anywhere."""
    tokens = _document(rng)
    n = min(2 * KEPT + 1, len(tokens))
    start = int(rng.integers(len(tokens) - n + 1))
    return _window(tokens, start, start + n, 50_000 + at)


def _pool(place: Place, length: int = KEPT + 1) -> Pool:
    rng = np.random.default_rng(5)
    examples = [_example(rng, at, place) for at in range(2 * N)]
    windows = [_at_random(rng, at) for at in range(N)]
    peaks = (peaks_of(*[0.0] * 9), peaks_of(*[0.0] * N))
    sample = sample_of(windows, reservoir=9, documents=10**5, length=length)
    return make_pool(ID, "max", HASH, examples, sample, peaks)


def _told(pool: Pool) -> float:
    items = pool.take(ALL)
    order = np.random.default_rng(1).permutation(len(items))
    texts = fuzzing_texts(items, pool.seed)
    forms = [form_of(items[at], texts[at]) for at in order]
    return told_apart(forms, [items[at].truth for at in order])


def test_windows_as_they_are_kept_would_be_told_apart_by_their_form() -> None:
    assert _told(_pool(_anywhere, length=2 * KEPT + 1)) > 0.65


def test_form_tells_no_strata_apart_where_peaks_are_anywhere() -> None:
    assert 0.44 < _told(_pool(_anywhere)) < 0.56


@pytest.mark.parametrize("place", [_anywhere, _near_an_end])
def test_no_feature_of_form_tells_strata_apart_in_documents_of_any_length(place: Place) -> None:
    items = _pool(place).take(ALL)
    texts = fuzzing_texts(items, seed=3)
    forms = np.asarray([form_of(*both) for both in zip(items, texts, strict=True)])
    truth = np.asarray([item.truth for item in items])
    # A text around a peak near an end begins or ends there, which nothing can hide.
    skipped = {0, 2} if place is _near_an_end else set()
    areas = [area(column, truth) for column in forms.T]
    assert {at for at, found in enumerate(areas) if abs(found - 0.5) > 0.05} <= skipped, areas


def test_a_stretch_holds_its_peak_at_any_of_its_places() -> None:
    items = _pool(_anywhere).items["pole"]
    inner = [
        item.peak
        for item in items
        if item.window.start > 0 and len(item.window.token_ends) == KEPT + 1
    ]
    assert set(range(1, KEPT)) <= set(inner)
    for item in items:
        assert item.marks
        assert item.peak == item.marks.peak - item.first
        assert 0 <= item.peak < len(item.window.token_ends) <= KEPT + 1


def test_form_tells_no_strata_apart_in_a_scanned_run(organism: Organism) -> None:
    """Of documents with as many tokens as a stretch; longer ones reach further, which is true."""
    forms, truths = [], []
    for pool in organism.pools:
        items = pool.take({"pole": 10, "middle": 20, "random": 20})
        for item, text in zip(items, fuzzing_texts(items, pool.seed), strict=True):
            if len(item.window.token_ends) == KEPT + 1:
                forms.append(form_of(item, text))
                truths.append(item.truth)
    order = np.random.default_rng(1).permutation(len(forms))
    assert len(forms) > 1000
    assert 0.4 < told_apart([forms[at] for at in order], [truths[at] for at in order]) < 0.6
    areas = [area(column, np.asarray(truths)) for column in np.asarray(forms).T]
    # With which character a text begins has to do with what it says.
    assert {at for at, found in enumerate(areas) if abs(found - 0.5) > 0.06} <= {2}, areas
