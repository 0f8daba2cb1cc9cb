"""Which texts does a run hold for the scores of each pole? Read from its database, pole by pole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from builder.records import ANY_ROLE
from builder.scores.items import Pool, Sample, make_pool
from builder.store import AT_ONCE, RunStore


def pole_pools(store: RunStore, directions: Iterable[str]) -> Iterator[Pool]:
    """The texts that labels of both poles of these directions may be judged on."""
    hashes = {row.id: row.content_hash for row in store.directions()}
    # So many tokens are kept on either side of a peak; a stretch that holds it always fits in.
    length = int(store.meta()["settings"]["scan"]["window"]) + 1
    sample = Sample(
        windows=tuple(store.held_out()),
        reservoir_docs=tuple(window.doc_id for window in store.reservoir()),
        documents=sum(count.n for count in store.counts() if count.what == "distinct"),
        length=length,
        alike=store.near_duplicates(),
    )
    wanted = list(directions)
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        peaks, examples = store.sample_peaks(some), store.examples_of(some, role=ANY_ROLE)
        for direction in some:
            for pole, reach in peaks[direction].items():
                own = examples[direction]
                yield make_pool(direction, pole, hashes[direction], own, sample, reach)
