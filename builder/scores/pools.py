"""Which texts does a run hold for the scores of each pole? Read from its database, pole by pole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from builder.records import ANY_ROLE, POLES
from builder.scores.items import Pool, Sample, make_pool
from builder.store import RunStore


def pole_pools(store: RunStore, directions: Iterable[str]) -> Iterator[Pool]:
    """The texts that labels of both poles of these directions may be judged on."""
    hashes = {row.id: row.content_hash for row in store.directions()}
    sample = Sample(
        windows=tuple(store.held_out()),
        reservoir_docs=tuple(window.doc_id for window in store.reservoir()),
        documents=sum(count.n for count in store.counts() if count.what == "distinct"),
    )
    for direction in directions:
        examples = store.examples(direction, role=ANY_ROLE)
        for pole in POLES:
            peaks = store.sample_peaks(direction, pole)
            yield make_pool(direction, pole, hashes[direction], examples, sample, peaks)
