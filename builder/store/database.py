"""How is a run's database opened, changed and compared?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import duckdb

from builder.errors import DiskFullError, StoreError, is_disk_full
from builder.store.masks import Mask, add_mask
from builder.store.schema import SCHEMA_VERSION, connect


class Database:
    """A run's database, opened for reading unless asked, and its facts."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = True,
        memory: str = "1GB",
        threads: int | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Opens ``path``; raises StoreError if it is missing, damaged, locked or of another age.

        ``memory`` is the most that the database itself takes, ``threads`` how many it uses (None:
        one for each processor core). Through ``mask`` go all texts of the corpus and all that
        labelers wrote, before they are given out; it must keep their length.
        """
        self._mask = mask
        if not path.is_file():
            raise StoreError(f"{path}: no database here; run `weightatlas scan` first")
        try:
            self._connection = connect(path, read_only=read_only, memory=memory, threads=threads)
            version = self.meta().get("schema_version")
        except duckdb.Error as error:
            raise StoreError(f"{path}: cannot be opened: {error}") from error
        if version != SCHEMA_VERSION:
            self.close()
            raise StoreError(
                f"{path}: has schema {version}, this weightatlas reads {SCHEMA_VERSION}; "
                "delete it and run `weightatlas scan` again (finished shards are reused)"
            )
        self.path = path
        add_mask(self._connection, mask)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def meta(self) -> dict[str, Any]:
        """What the run is made of: models, settings, fingerprints, facts; JSON values by key."""
        rows = self._connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
        return {key: json.loads(value) for key, value in rows}

    def fact(self, key: str) -> Any:
        """One of the run's facts; None where there is none of that name."""
        # Read to its end: a query that is not leaves the connection in use.
        rows = self._connection.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchall()
        return json.loads(rows[0][0]) if rows else None

    def update_meta(self, values: Mapping[str, Any]) -> None:
        """Sets some of the run's facts, in one transaction."""
        with self.writing("facts"):
            self.put_meta(values)

    def put_meta(self, values: Mapping[str, Any]) -> None:
        """Sets some of the run's facts, inside :meth:`writing`."""
        for key, value in values.items():
            self._connection.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", [key, json.dumps(value)]
            )

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """One transaction, and clear errors if it fails."""
        try:
            self._connection.execute("BEGIN")
            yield
            self._connection.execute("COMMIT")
            self._connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            if is_disk_full(error):
                raise DiskFullError(f"{self.path}: no space left for the {what}") from error
            raise StoreError(f"{self.path}: {what} could not be written: {error}") from error

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every table as sorted rows, to compare two databases value by value."""
        tables = self._connection.execute(
            "SELECT table_name FROM information_schema.tables ORDER BY table_name"
        ).fetchall()
        return {
            name: self._connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for (name,) in tables
        }
