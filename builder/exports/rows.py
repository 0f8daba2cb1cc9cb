"""What do a direction's poles become in Neuronpedia? Rows of its tables, one feature a pole.

A feature there fires upwards only, so each pole is one: max along u, min along -u, with activations
and logits of the opposite sign. Feature 2r is the max pole of rank r, 2r + 1 its min pole.

Facts from hijohnnylin/neuronpedia: the columns are those of ``apps/webapp/prisma/schema.prisma``
(models Neuron, Activation, Explanation), as ``utils/neuronpedia-utils/neuronpedia_utils/
export-data.py`` exports them. ``apps/webapp/lib/db/import.ts`` takes the columns of all lines of a
file from its first one and leaves others to the defaults of the database, which ids have none of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from builder.records import (
    ACTIVATION_SCALE,
    CONTENT_ROLES,
    HISTOGRAM_BINS,
    POLES,
    Example,
    Histogram,
    Label,
    Pole,
    Score,
)
from builder.store import DirectionRow

Row = dict[str, Any]
#: Bars of a feature's histogram: the bins on its side, some together.
BARS = 50
#: Decimals of activations (stored as whole numbers of 1/32767) and of vectors.
_DECIMALS, _VECTOR_DECIMALS = 5, 7


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows belong: the model, the source and its set there, and who they are made by."""

    model: str
    source: str
    source_set: str
    creator: str


def index_of(row: DirectionRow, pole: Pole) -> str:
    """The number of the feature that a pole becomes."""
    return str(2 * row.rank + POLES.index(pole))


def feature(
    place: Place,
    row: DirectionRow,
    pole: Pole,
    vector: npt.NDArray[np.float32],
    histograms: Sequence[Histogram],
    top: float,
) -> Row:
    """The row of Neuron; ``top`` is the greatest activation towards the pole."""
    sign = _sign(pole)
    lens = (row.promoted, row.suppressed) if pole == "max" else (row.suppressed, row.promoted)
    counts = sum(
        (item.counts for item in histograms if item.role in CONTENT_ROLES),
        np.zeros(HISTOGRAM_BINS, dtype=np.int64),
    )
    own = (counts if pole == "max" else counts[::-1])[HISTOGRAM_BINS // 2 :]
    heights = own.reshape(BARS, -1).sum(axis=1)
    used = int(np.flatnonzero(heights)[-1]) + 1 if heights.any() else 0
    total = int(counts.sum())
    return {
        "modelId": place.model,
        "layer": place.source,
        "index": index_of(row, pole),
        "sourceSetName": place.source_set,
        "creatorId": place.creator,
        "maxActApprox": round(sign * top, _DECIMALS),
        "hasVector": True,
        "vector": np.round(sign * vector.astype(np.float64), _VECTOR_DECIMALS).tolist(),
        "vectorLabel": f"{row.id} {pole}",
        "hookName": f"blocks.{row.hookpoint.layer}.hook_resid_post",
        "frac_nonzero": round(float(own.sum()) / total, 6) if total else 0.0,
        "freq_hist_data_bar_heights": heights[:used].tolist(),
        "freq_hist_data_bar_values": [round((at + 0.5) / BARS, 4) for at in range(used)],
        "pos_str": [token for token, _ in lens[0]],
        "pos_values": [round(sign * logit, 4) for _, logit in lens[0]],
        "neg_str": [token for token, _ in lens[1]],
        "neg_values": [round(sign * logit, 4) for _, logit in lens[1]],
    }


def activations(
    place: Place, row: DirectionRow, pole: Pole, examples: Sequence[Example]
) -> Iterator[Row]:
    """The rows of Activation: a pole's examples over all roles, the most extreme first.

    Their greatest value is that of the peak, which is never a token of the chat template.
    """
    for example in examples:
        values = _sign(pole) * example.activations.astype(np.float64) / ACTIVATION_SCALE
        yield {
            "id": _id(place, row, pole, "activation", str(example.place)),
            "modelId": place.model,
            "layer": place.source,
            "index": index_of(row, pole),
            "creatorId": place.creator,
            "dataSource": example.window.source,
            "tokens": tokens_of(example),
            "maxValue": round(float(values[example.peak]), _DECIMALS),
            "minValue": round(float(values.min()), _DECIMALS),
            "values": np.round(values, _DECIMALS).tolist(),
            "maxValueTokenIndex": example.peak,
        }


def tokens_of(example: Example) -> list[str]:
    """The text of each token of a window; of a character split over several the first has it."""
    ends = example.window.token_ends.tolist()
    text = example.window.text
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def explanation(
    place: Place, row: DirectionRow, pole: Pole, label: Label, score: Score | None
) -> Row:
    """The row of Explanation of a label that has a text; what has no column stands in notes."""
    notes = [f"{row.id} {pole}, labeled by {label.labeler}"]
    if label.prompt_hash:
        notes.append(f"prompt {label.prompt_hash}")
    if label.created:
        notes.append(label.created)
    if score is not None and score.f1 is not None:
        interval = score.f1_interval
        around = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        notes.append(f"F1 {score.f1:.2f}{around} by {score.scorer}, judged by {score.judge}")
    return {
        "id": _id(place, row, pole, "explanation", label.labeler),
        "modelId": place.model,
        "layer": place.source,
        "index": index_of(row, pole),
        "authorId": place.creator,
        "description": label.text,
        "notes": "; ".join(notes),
    }


def _sign(pole: Pole) -> int:
    return 1 if pole == "max" else -1


def _id(place: Place, row: DirectionRow, pole: Pole, *parts: str) -> str:
    """25 characters in the form of theirs, which follow from what the row is of."""
    key = "\0".join((place.model, place.source, row.content_hash, pole, *parts))
    return f"c{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
