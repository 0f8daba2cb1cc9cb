"""Organisms: tiny models with planted behaviours, so that every stage has an answer to be checked
against.

`shipped_pairs` lists the ones that come with the package, `scan_corpus` writes the documents to
scan them with and `purity` says whether the directions found what was planted.
`builder.organisms.train.make_organisms` makes them all again; it is not imported here, because it
needs torch.
"""

from builder.organisms.behaviours import (
    BEHAVIOURS,
    Behaviour,
    planted_documents,
    scan_corpus,
    write_scan_corpus,
)
from builder.organisms.evaluate import Purity, purity
from builder.organisms.manifest import Pair, read_manifest, shipped_pairs
from builder.organisms.world import plain_rows

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "Pair",
    "Purity",
    "plain_rows",
    "planted_documents",
    "purity",
    "read_manifest",
    "scan_corpus",
    "shipped_pairs",
    "write_scan_corpus",
]
