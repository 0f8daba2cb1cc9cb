"""What does a finished shard of a scan look like on disk?

A shard is a folder of Parquet files whose schemas stand here; the scan writes them, the store
merges them. Texts are kept once per document, and only the windows that win in the end are cut from
them. Neither torch nor duckdb is needed to read this module.
"""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from builder.errors import StoreError
from builder.records import HISTOGRAM_BINS

#: Lengths of documents are counted in classes, of which so many double the length.
CLASSES_AN_OCTAVE = 4


def length_class(tokens: int) -> int:
    """The class of documents of so many tokens (at least 1): about 2^(class / 4) of them."""
    return round(CLASSES_AN_OCTAVE * math.log2(tokens))


#: Columns of a shard's ``examples.parquet``, the candidates of every list (see ``candidates``);
#: ``direction`` is the index in the direction set, ``role`` and ``pole`` are indices into ROLES and
#: POLES. ``cluster`` names the near-duplicates that a document is one of. ``prefix`` is a hash of
#: all that the model has read up to the peak: where it is equal, so is the activation. ``position``
#: is the peak's token in the document and ``start`` the first token of the window whose
#: ``activations`` follow, both counted from the document's start; the window lies in ``piece``.
#: ``base_activations`` is null where the base was not scanned.
EXAMPLES_SCHEMA = pa.schema(
    [
        ("direction", pa.int32()),
        ("role", pa.uint8()),
        ("pole", pa.uint8()),
        ("value", pa.float32()),
        ("doc_id", pa.int64()),
        ("cluster", pa.uint64()),
        ("prefix", pa.uint64()),
        ("piece", pa.int32()),
        ("position", pa.int32()),
        ("start", pa.int32()),
        ("activations", pa.list_(pa.int16())),
        ("base_activations", pa.list_(pa.int16())),
    ]
)

#: Columns of a shard's ``documents.parquet``: every piece of a document that an example or a sample
#: names. ``first`` is the index in the document of the piece's first token. ``token_ends`` are
#: character offsets in ``text``, ``roles`` indices into ROLES, one per token.
DOCUMENTS_SCHEMA = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("piece", pa.int32()),
        ("first", pa.int32()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("token_ends", pa.list_(pa.uint32())),
        ("roles", pa.list_(pa.uint8())),
    ]
)

#: Columns of a shard's ``stats.parquet``: one row per direction, role and model that had tokens;
#: ``model`` is an index into MODELS (a difference outside [-1, 1] counts in the outermost bin).
STATS_SCHEMA = pa.schema(
    [
        ("direction", pa.int32()),
        ("role", pa.uint8()),
        ("model", pa.uint8()),
        ("n", pa.int64()),
        ("total", pa.float64()),
        ("squares", pa.float64()),
        ("minimum", pa.float32()),
        ("maximum", pa.float32()),
        ("counts", pa.list_(pa.int64(), HISTOGRAM_BINS)),
    ]
)

#: Columns of a shard's ``tail.parquet``: the ``scan.tail`` most extreme documents of every
#: direction and pole by their content tokens, one of each cluster (its first), best first.
TAIL_SCHEMA = pa.schema(
    [
        ("direction", pa.int32()),
        ("pole", pa.uint8()),
        ("value", pa.float32()),
        ("doc_id", pa.int64()),
        ("cluster", pa.uint64()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
    ]
)

#: Columns of a shard's ``levels.parquet``: the extremes over the content tokens of the documents of
#: each level (see LEVELS), where there were any.
LEVELS_SCHEMA = pa.schema(
    [
        ("direction", pa.int32()),
        ("level", pa.uint8()),
        ("minimum", pa.float32()),
        ("maximum", pa.float32()),
    ]
)

#: Columns of a shard's ``samples.parquet``: windows of random documents. Those with the smallest
#: ``priority`` (a hash of the text and the seed) are the run's random sample, whatever the shards.
#: The window is the ``length`` tokens from ``start`` (in the document), within ``piece``;
#: ``activations`` are those of all directions, one direction after the other.
SAMPLES_SCHEMA = pa.schema(
    [
        ("priority", pa.uint64()),
        ("doc_id", pa.int64()),
        ("cluster", pa.uint64()),
        ("piece", pa.int32()),
        ("start", pa.int32()),
        ("length", pa.int32()),
        ("activations", pa.list_(pa.int16())),
        ("base_activations", pa.list_(pa.int16())),
    ]
)

#: Columns of a shard's ``counts.parquet``: what was read, excluded and dropped, and why.
#: ``what`` is ``documents`` or ``tokens`` (name: source), ``distinct`` (documents that are the
#: first of their cluster; name: source), ``levels`` (documents; name: the level), ``roles``
#: (tokens; name: role), ``excluded`` (tokens; name: reason, per layer where it differs),
#: ``dropped`` or ``noted`` (documents; name: reason).
COUNTS_SCHEMA = pa.schema(
    [
        ("what", pa.string()),
        ("name", pa.string()),
        ("layer", pa.int32()),
        ("n", pa.int64()),
    ]
)

#: A shard's files and their columns.
SHARD_FILES: dict[str, pa.Schema] = {
    "examples.parquet": EXAMPLES_SCHEMA,
    "documents.parquet": DOCUMENTS_SCHEMA,
    "stats.parquet": STATS_SCHEMA,
    "tail.parquet": TAIL_SCHEMA,
    "levels.parquet": LEVELS_SCHEMA,
    "samples.parquet": SAMPLES_SCHEMA,
    "counts.parquet": COUNTS_SCHEMA,
}


def read_counts(shard: Path) -> list[tuple[str, str, int]]:
    """(what, name, n) of a finished shard; see COUNTS_SCHEMA and :func:`read_shard_file`."""
    table = read_shard_file(shard, "counts.parquet", COUNTS_SCHEMA)
    columns = (table[name].to_pylist() for name in ("what", "name", "n"))
    return list(zip(*columns, strict=True))


def read_shard_file(shard: Path, name: str, schema: pa.Schema) -> pa.Table:
    """One file of a finished shard; raises StoreError that names a missing or damaged one."""
    path = shard / name
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        if table.schema.names != schema.names:
            raise pa.ArrowInvalid(f"its columns are {', '.join(table.schema.names)}")
        table = table.cast(schema)
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise StoreError(
            f"{path}: {what}; delete the folder {shard} and run the same command again"
        ) from error
    return table
