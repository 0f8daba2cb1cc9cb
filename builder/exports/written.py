"""How does a folder of an export appear whole, and with the same bytes each time?"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from builder.errors import ConfigError, DiskFullError, StoreError, is_disk_full

_MARK = ".weightatlas-export"
_ESCAPE = re.compile(r"\\(.)")


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at the end; nothing is left of a failure.

    Raises ConfigError if ``out`` is there already, DiskFullError or StoreError if it cannot be
    written.
    """
    part = out.with_name(f"{out.name}.part")
    if out.exists():
        raise ConfigError(f"{out}: is there already; give another folder, or remove it")
    if part.exists() and not (part / _MARK).is_file():
        raise ConfigError(f"{part}: is in the way and was not made by weightatlas; remove it")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / _MARK).touch()
        yield part
        (part / _MARK).unlink()
        part.rename(out)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if is_disk_full(error):
            raise DiskFullError(f"{out}: no space left for the export") from error
        raise StoreError(f"{out}: the export could not be written: {error}") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_lines(place: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes rows as JSON lines, compressed if the name ends in ``.gz``; returns how many."""
    place.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with place.open("wb") as stream, contextlib.ExitStack() as stack:
        target: Any = stream
        if place.suffix == ".gz":
            # Neither name nor time, so that equal rows give equal bytes.
            target = stack.enter_context(
                gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0)
            )
        for row in rows:
            target.write(line(row))
            count += 1
    return count


def line(row: Mapping[str, Any]) -> bytes:
    """A row as one line of strict JSON in ASCII.

    A backslash is written by its number: importers that look for the escape of NUL in the line,
    as Neuronpedia's does, would otherwise find it in a text that holds a backslash and ``u0000``.
    """
    text = json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    if "\\\\" in text:
        text = _ESCAPE.sub(lambda m: r"\u005c" if m[1] == "\\" else m[0], text)
    return f"{text}\n".encode("ascii")
