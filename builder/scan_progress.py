"""How far is a scan? A bar for who watches, and a record in the run folder for who asks.

``stages/progress.json`` is written when a scan begins and after each shard; ``weightatlas status``
reads it while the scan runs, and after it was killed. When all shards are there, the scan is put on
record as any other stage.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from builder.execute import Executor, Unit, write_json
from builder.run_folder import Cost, peak_memory_mb, record_stage, stage_record

#: What shards count, by kind of count and name; see COUNTS_SCHEMA of the shard files.
Counts = Mapping[str, Counter[str]]


def record_joined(folder: Path, digest: str, units: Sequence[Unit], counts: Counts) -> None:
    """Puts on record a scan that was taken from other runs whole; ``counts`` are of all shards."""
    documents = sum(unit.size for unit in units)
    values: dict[str, Any] = {
        "fingerprint": digest,
        "shards": len(units),
        "shards_done": len(units),
        "damaged_shards": 0,
        "documents": documents,
        "documents_done": documents,
        "tokens": counts["tokens"].total(),
        "dropped": dict(counts["dropped"]),
        "seconds": 0.0,
        "tokens_per_second": None,
        "seconds_left": None,
        "executor": "joined",
        "workers": 0,
    }
    (folder / "stages").mkdir(exist_ok=True)
    write_json(folder / "stages" / "progress.json", values)


class ScanProgress:
    """Follows one call of a scan, of which a part may have been done by earlier calls."""

    def __init__(
        self, folder: Path, digest: str, units: Sequence[Unit], executor: Executor, damaged: int
    ) -> None:
        """``digest`` stands for all units; ``damaged`` of them were found so, to be done again."""
        self._folder = folder
        self._digest = digest
        self._units = len(units)
        self._executor = executor
        before = stage_record(folder, "progress") or {}
        # A scan that goes on after a stop took what both parts took.
        resumed = before if before.get("fingerprint") == digest else {}
        self._spent = float(resumed.get("seconds", 0.0))
        self._damaged = int(resumed.get("damaged_shards", 0)) + damaged
        self._start = time.perf_counter()
        self._shards = self._documents = self._tokens = 0
        #: What this call has done, from which its rate follows.
        self._own_documents = self._own_tokens = 0
        self._dropped = Counter[str]()
        #: Documents and tokens of the shards that are being scanned.
        self._under_way: dict[Unit, tuple[int, int]] = {}
        self._bar = tqdm(
            None,
            "scan",
            total=sum(unit.size for unit in units),
            unit=" documents",
            delay=1,
            disable=None,
        )

    def __enter__(self) -> ScanProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def found(self, unit: Unit, counts: Counts) -> None:
        """Adds a shard that an earlier call has scanned."""
        self._add(unit, counts)

    def begin(self) -> None:
        """Puts on record what was found, before anything is scanned; not what stands there."""
        self._show()
        known = stage_record(self._folder, "progress") or {}
        whole = {"fingerprint": self._digest, "shards_done": self._units}
        if self._shards < self._units or {key: known.get(key) for key in whole} != whole:
            self._write()

    def batch(self, unit: Unit, documents: int, tokens: int) -> None:
        """Shows how far a shard is that is being scanned."""
        self._under_way[unit] = documents, tokens
        self._show()

    def done(self, unit: Unit, counts: Counts) -> None:
        """Adds a shard that was scanned now."""
        self._under_way.pop(unit, None)
        self._add(unit, counts)
        self._own_documents += unit.size
        self._own_tokens += counts["tokens"].total()
        self._show()
        self._write()

    def finish(self) -> None:
        """Puts the whole scan on record, unless it is there and nothing was done now."""
        known = stage_record(self._folder, "scan") or {}
        facts = {"tokens": self._tokens}
        facts |= {"damaged_shards": self._damaged} if self._damaged else {}
        kept = {key: known.get(key) for key in ("fingerprint", *facts)}
        if self._own_documents or kept != {"fingerprint": self._digest, **facts}:
            cost = Cost(self._spent + self._elapsed(), peak_memory_mb())
            record_stage(self._folder, "scan", self._digest, cost, facts)

    def _add(self, unit: Unit, counts: Counts) -> None:
        self._shards += 1
        self._documents += unit.size
        self._tokens += counts["tokens"].total()
        self._dropped.update(counts["dropped"])

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start

    def _show(self) -> None:
        documents, tokens = (sum(pair[at] for pair in self._under_way.values()) for at in (0, 1))
        self._bar.set_postfix(tokens=f"{self._own_tokens + tokens:,}", refresh=False)
        self._bar.update(self._documents + documents - self._bar.n)

    def _write(self) -> None:
        elapsed, total = self._elapsed(), int(self._bar.total)
        left = total - self._documents
        per_document = elapsed / self._own_documents if self._own_documents else None
        values: dict[str, Any] = {
            "fingerprint": self._digest,
            "shards": self._units,
            "shards_done": self._shards,
            "damaged_shards": self._damaged,
            "documents": total,
            "documents_done": self._documents,
            "tokens": self._tokens,
            "dropped": dict(self._dropped),
            "seconds": round(self._spent + elapsed, 2),
            "tokens_per_second": round(self._own_tokens / elapsed, 1) if per_document else None,
            "seconds_left": round(left * per_document, 1) if per_document is not None else None,
            "executor": self._executor.name,
            "workers": self._executor.workers,
        }
        (self._folder / "stages").mkdir(exist_ok=True)
        write_json(self._folder / "stages" / "progress.json", values)
