"""Which traces belong to a conversation, and what do conversations give as calibration?

Documents go through the model in groups, so that those of like length share a batch, and come back
one by one with all their pieces. What the model cannot be shown comes back with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from builder.activations.corpus import Document
from builder.activations.tokens import DocumentTokenizer, Dropped, TokenizedDocument
from builder.errors import MonitorError
from builder.monitor.ranges import Calibration, Ranges, Rate, extents, observed_rate
from builder.monitor.traces import Trace, Tracer
from builder.monitor.watch import MARGIN, RangeMonitor

#: Documents that are tokenized and sorted by length together.
_GROUP = 256


class Conversations:
    """Documents as traces, by one model with its tokenizer and directions."""

    def __init__(self, tracer: Tracer, tokenizer: DocumentTokenizer) -> None:
        self._tracer = tracer
        self._tokenizer = tokenizer

    @property
    def n_directions(self) -> int:
        """How many directions every trace has."""
        return self._tracer.n_directions

    def traces(self, documents: Iterable[Document]) -> Iterator[tuple[Document, list[Trace] | str]]:
        """Every document in order with the traces of its pieces in order, or why it has none."""
        waiting = iter(documents)
        while group := tuple(islice(waiting, _GROUP)):
            found: list[list[Trace] | str] = [[] for _ in group]
            place = {document.doc_id: at for at, document in enumerate(group)}
            if len(place) < len(group):
                raise MonitorError("two documents have one number (doc_id); number them apart")
            pieces: list[TokenizedDocument] = []
            for item in self._tokenizer.tokenize(group):
                if isinstance(item, Dropped):
                    found[place[item.doc_id]] = item.reason
                else:
                    pieces.append(item)
            for trace in self._tracer.traces(pieces):
                held = found[place[trace.piece.document.doc_id]]
                assert isinstance(held, list)
                held.append(trace)
            for document, traces in zip(group, found, strict=True):
                if isinstance(traces, list):
                    traces.sort(key=lambda trace: trace.piece.piece)
                yield document, traces


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """Ranges of all conversations, and how often some of these were flagged by the others' ranges.

    ``held_out`` is that rate: the last conversations against the ranges of those before, as the
    published code measures it (Watch the Weights, arXiv 2508.00161). ``dropped`` counts documents
    that could not be shown to the model, by reason.
    """

    ranges: Ranges
    held_out: Rate
    dropped: dict[str, int]


def calibrate(
    conversations: Conversations,
    documents: Iterable[Document],
    *,
    n: int,
    percentile: float = 0.0,
    margin: float = MARGIN,
    held_out: float = 0.1,
) -> Calibrated:
    """Ranges by the first ``n`` documents at most; see :class:`Calibrated`.

    The share ``held_out`` of ``n``, the last of them, is held against the others' ranges first and
    taken into the ranges then. Order matters for that rate alone. Raises MonitorError if nothing
    can be calibrated on.
    """
    if not 0 <= held_out < 1:
        raise MonitorError(f"{held_out} of the conversations held out: give 0 to below 1")
    calibration = Calibration(conversations.n_directions, percentile=percentile, most=n)
    names = [str(at) for at in range(conversations.n_directions)]
    dropped: Counter[str] = Counter()
    monitor: RangeMonitor | None = None
    flagged = tested = 0
    first_held_out = n - round(held_out * n)
    for at, (_, traces) in enumerate(conversations.traces(islice(documents, n))):
        if isinstance(traces, str):
            dropped[traces] += 1
            continue
        if at >= first_held_out and calibration.conversations:
            monitor = monitor or RangeMonitor(names, calibration.ranges(), margin=margin)
            flagged += bool(monitor.observe(traces))
            tested += 1
        calibration.add(extents(traces, conversations.n_directions))
    return Calibrated(calibration.ranges(), observed_rate(flagged, tested), dict(dropped))
