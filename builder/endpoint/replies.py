"""Which replies were had, and what did all requests cost? Kept in ``replies.sqlite``.

``replies`` holds each reply under the hash of all that shapes it, whatever is in it: the same
question is never paid for twice, and a refusal stays a refusal until it is asked again on purpose.

``requests`` holds one row for each request that may have to be paid for. It is written before the
request is sent, at the most that can cost, so that a killed process leaves no request uncounted. It
becomes the server's own count when a reply arrives, and goes when the server says that it did not
answer. A request that timed out, or was on its way when the process was killed, stays as it is.
``batches`` holds what was handed to a batch endpoint and is not collected yet, ``batched`` what a
reply to each of its questions is to be kept with, whatever the settings are by then.

Every change is one transaction in SQLite's write-ahead log: it survives the end of the process, and
a reader never sees half of it. Nothing is held in memory.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from builder.endpoint.access import Access
from builder.endpoint.messages import Question, Reply
from builder.endpoint.prices import Price
from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.records import Spend

logger = logging.getLogger(__name__)

#: Raised when the tables change; a file of another version is refused.
VERSION = 1

_SCHEMA = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, prompt_hash TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
    parameters TEXT NOT NULL, content TEXT NOT NULL, finish_reason TEXT NOT NULL,
    refusal TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    unmetered INTEGER NOT NULL, cost REAL, created TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    unmetered INTEGER NOT NULL, cost REAL, created TEXT NOT NULL, batch TEXT NOT NULL);
CREATE INDEX requests_by_key ON requests (key);
CREATE TABLE batches (
    file TEXT PRIMARY KEY, id TEXT NOT NULL, stage TEXT NOT NULL, model TEXT NOT NULL,
    endpoint TEXT NOT NULL, requests INTEGER NOT NULL);
"""
# Added to files that were made without it.
_BATCHED = """
CREATE TABLE IF NOT EXISTS batched (
    file TEXT NOT NULL, key TEXT NOT NULL, prompt_hash TEXT NOT NULL, parameters TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (file, key)) WITHOUT ROWID
"""
_REPLY = (
    "content, finish_reason, refusal, prompt_tokens, completion_tokens, unmetered, cost, created"
)

_NO_PRICES: Mapping[str, Price] = MappingProxyType({})

#: Name of their file in a run folder.
REPLIES = "replies.sqlite"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; ``unmetered`` where they are an estimate and no server's count."""

    prompt_tokens: int
    completion_tokens: int
    unmetered: bool = False


@dataclass(frozen=True, slots=True)
class Batched:
    """One request of a batch: the hash of its question, all else that shapes the reply (see
    :func:`parameters_of`), and the most it can use.
    """

    key: str
    prompt_hash: str
    parameters: str
    most: Usage


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that is not collected: its input file, its id (empty until known), what it is for."""

    file: str
    id: str
    stage: str
    model: str
    endpoint: str
    requests: int


class Replies:
    """The kept replies of one run folder; safe to share between threads. A context manager.

    Raises StoreError where they cannot be read or kept, DiskFullError where no space is left.
    """

    def __init__(self, path: Path) -> None:
        #: Replies that were kept since this was opened.
        self.arrived = 0
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=30
            )
        try:
            with self._errors():
                self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        # In the write-ahead log a commit outlives the process without waiting for the disk.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise StoreError(
                f"{self._path}: was written by another version of weightatlas; delete it to ask "
                "(and pay) again"
            )
        if not version:
            self._connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            )
        self._connection.execute(_BATCHED)

    def __enter__(self) -> Replies:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def find(self, key: str) -> Reply | None:
        """The reply kept under a key, marked as kept; None when there is none."""
        with self._lock, self._errors():
            row = self._connection.execute(
                f"SELECT {_REPLY} FROM replies WHERE key = ?",  # noqa: S608 - names of our own
                [key],
            ).fetchone()
        if row is None:
            return None
        return Reply(
            content=row[0],
            finish_reason=row[1],
            refusal=row[2],
            prompt_tokens=row[3],
            completion_tokens=row[4],
            unmetered=bool(row[5]),
            cost=row[6],
            created=row[7],
            cached=True,
        )

    def begin(self, key: str, stage: str, access: Access, most: Usage, price: Price | None) -> int:
        """The number of a request that is about to be sent and costs at most so much."""
        with self._lock, self._errors():
            return self._begin(key, stage, access, most, price, "")

    def _begin(
        self, key: str, stage: str, access: Access, most: Usage, price: Price | None, batch: str
    ) -> int:
        cursor = self._connection.execute(
            "INSERT INTO requests (key, stage, model, prompt_tokens, completion_tokens, "
            "unmetered, cost, created, batch) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)",
            [
                key,
                stage,
                access.public_model,
                most.prompt_tokens,
                most.completion_tokens,
                _cost(most, price),
                today(),
                batch,
            ],
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def begin_batch(
        self,
        file: str,
        requests: Sequence[Batched],
        stage: str,
        access: Access,
        price: Price | None,
    ) -> None:
        """Remembers a file of requests that is about to become a batch."""
        with self._lock, self._errors(), self._transaction():
            self._connection.execute(
                "INSERT INTO batches VALUES (?, '', ?, ?, ?, ?)",
                [file, stage, access.model, access.where, len(requests)],
            )
            for each in requests:
                self._begin(each.key, stage, access, each.most, price, file)
            self._connection.executemany(
                "INSERT INTO batched VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        file,
                        each.key,
                        each.prompt_hash,
                        each.parameters,
                        each.most.prompt_tokens,
                        each.most.completion_tokens,
                    )
                    for each in requests
                ],
            )

    def batched(self, file: str, key: str) -> Batched | None:
        """A request of a batch that is not collected yet; None where nothing is known of it."""
        with self._lock, self._errors():
            row = self._connection.execute(
                "SELECT prompt_hash, parameters, prompt_tokens, completion_tokens FROM batched "
                "WHERE file = ? AND key = ?",
                [file, key],
            ).fetchone()
        return Batched(key, row[0], row[1], Usage(row[2], row[3], unmetered=True)) if row else None

    def set_batch(self, file: str, batch: str) -> None:
        """Remembers the id of the batch that a file became."""
        with self._lock, self._errors():
            self._connection.execute("UPDATE batches SET id = ? WHERE file = ?", [batch, file])

    def end_batch(self, file: str, answered: Iterable[str] = ()) -> None:
        """Forgets a batch that is collected, and its requests that were not answered.

        ``answered`` are keys of requests that were, though their replies could not be kept.
        """
        with self._lock, self._errors(), self._transaction():
            self._connection.executemany(
                "UPDATE requests SET batch = '' WHERE batch = ? AND key = ?",
                [(file, key) for key in answered],
            )
            self._connection.execute("DELETE FROM requests WHERE batch = ?", [file])
            self._connection.execute("DELETE FROM batched WHERE file = ?", [file])
            self._connection.execute("DELETE FROM batches WHERE file = ?", [file])

    def is_in_batch(self, key: str) -> bool:
        """Whether a request for a key is on its way in a batch."""
        with self._lock, self._errors():
            row = self._connection.execute(
                "SELECT 1 FROM requests WHERE key = ? AND batch != '' LIMIT 1", [key]
            ).fetchone()
        return row is not None

    def batches(self, stage: str = "") -> list[OpenBatch]:
        """What was handed to a batch endpoint and is not collected yet, of one stage or of all."""
        with self._lock, self._errors():
            rows = self._connection.execute(
                "SELECT file, id, stage, model, endpoint, requests FROM batches ORDER BY rowid"
            ).fetchall()
        found = [OpenBatch(*row) for row in rows]
        return [item for item in found if stage in ("", item.stage)]

    def drop(self, request: int) -> None:
        """Forgets a request that the server did not answer and that costs nothing."""
        with self._lock, self._errors():
            self._connection.execute("DELETE FROM requests WHERE id = ?", [request])

    def settle(self, request: int, usage: Usage, price: Price | None) -> None:
        """Puts what a request used in the place of the most it could."""
        with self._lock, self._errors():
            self._settle(request, usage, price)

    def keep(
        self, request: int, question: Question, access: Access, reply: Reply, price: Price | None
    ) -> Reply:
        """Keeps the reply to a request with what it used, as it is to be given out.

        It takes the place of an earlier reply to the same question.
        """
        usage = Usage(reply.prompt_tokens, reply.completion_tokens, reply.unmetered)
        kept = replace(
            reply,
            # Half a surrogate pair, which JSON can hold and UTF-8 cannot, is shown as such.
            content=_storable(reply.content),
            finish_reason=_storable(reply.finish_reason),
            refusal=_storable(reply.refusal),
            cost=_cost(usage, price),
            created=today(),
        )
        row = [
            key_of(question, access),
            question.hash,
            access.public_model,
            access.where,
            parameters_of(question, access),
            kept.content,
            kept.finish_reason,
            kept.refusal,
            kept.prompt_tokens,
            kept.completion_tokens,
            int(kept.unmetered),
            kept.cost,
            kept.created,
        ]
        with self._lock, self._errors(), self._transaction():
            marks = ", ".join("?" * len(row))
            self._connection.execute(
                f"INSERT OR REPLACE INTO replies VALUES ({marks})",  # noqa: S608 - only marks
                row,
            )
            self._settle(request, usage, price)
            self.arrived += 1
        return kept

    def last_request(self, key: str) -> int | None:
        """The number of the last request for a key; None when there is none."""
        with self._lock, self._errors():
            row = self._connection.execute(
                "SELECT max(id) FROM requests WHERE key = ?", [key]
            ).fetchone()
        found: int | None = row[0]
        return found

    def spend(self, stage: str) -> list[Spend]:
        """What a stage has asked of each model so far, whatever became of the replies."""
        with self._lock, self._errors():
            rows = self._connection.execute(
                "SELECT stage, model, count(*), sum(prompt_tokens), sum(completion_tokens), "
                "sum(unmetered), CASE WHEN count(cost) = count(*) THEN sum(cost) END "
                "FROM requests WHERE stage = ? GROUP BY stage, model ORDER BY model",
                [stage],
            ).fetchall()
        return [Spend(*row) for row in rows]

    def spent(self, price: Price | None, prices: Mapping[str, Price] = _NO_PRICES) -> float:
        """US dollars that all stages have cost.

        What had no price then is counted at the one that ``prices`` gives for its model now, and
        where there is none, at the dearest of all that are known: these and ``price``.
        """
        with self._lock, self._errors():
            rows = self._connection.execute(
                "SELECT model, total(cost), total(CASE WHEN cost IS NULL THEN prompt_tokens END), "
                "total(CASE WHEN cost IS NULL THEN completion_tokens END) FROM requests "
                "GROUP BY model"
            ).fetchall()
        every = [*prices.values(), *([price] if price else [])]
        total = 0.0
        for model, known, prompt, completion in rows:
            own = [prices[model]] if model in prices else every
            total += known
            total += max((each.of(int(prompt), int(completion)) for each in own), default=0.0)
        return total

    def _settle(self, request: int, usage: Usage, price: Price | None) -> None:
        self._connection.execute(
            "UPDATE requests SET prompt_tokens = ?, completion_tokens = ?, unmetered = ?, "
            "cost = ?, batch = '' WHERE id = ?",
            [
                usage.prompt_tokens,
                usage.completion_tokens,
                int(usage.unmetered),
                _cost(usage, price),
                request,
            ],
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk may have ended the transaction already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if is_disk_full(error) or "is full" in str(error):
                raise DiskFullError(
                    f"{self._path}: no space left for replies; free some and run the same command "
                    "again, replies so far are kept"
                ) from error
            advice = (
                "; it is damaged: delete it to ask (and pay) again"
                if isinstance(error, sqlite3.DatabaseError)
                and not isinstance(error, sqlite3.OperationalError)
                else ""
            )
            raise StoreError(
                f"{self._path}: replies cannot be kept here: {error}{advice}"
            ) from error


def key_of(question: Question, access: Access) -> str:
    """What a reply is kept under: 32 hex digits of all that shapes it."""
    parts = [question.hash, access.model, access.where, parameters_of(question, access)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def parameters_of(question: Question, access: Access) -> str:
    """What shapes a reply besides the messages, the model and the endpoint, as JSON."""
    return json.dumps(
        {
            "temperature": access.temperature,
            "max_completion_tokens": question.max_completion_tokens,
            "schema_name": question.schema_name,
            "schema": dict(question.schema),
        },
        sort_keys=True,
    )


def today() -> str:
    """The day in UTC, YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _cost(usage: Usage, price: Price | None) -> float | None:
    return price.of(usage.prompt_tokens, usage.completion_tokens) if price else None


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
