"""Connections say nothing by themselves, wherever they are opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from builder.store.schema import connect

_ASK = "SELECT value FROM duckdb_settings() WHERE name = 'enable_progress_bar'"


def test_no_progress_is_printed_where_python_has_no_script(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    connect(path, read_only=False).close()
    program = (
        "from pathlib import Path\nimport duckdb\nfrom builder.store.schema import connect\n"
        f"print(duckdb.connect().execute({_ASK!r}).fetchone()[0],"
        f" connect(Path({str(path)!r}), read_only=True).execute({_ASK!r}).fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    # The first is what a plain connection does there; the test is of nothing once that is false.
    assert done.stdout.split() == ["true", "false"], done.stderr


def test_a_database_that_is_open_is_opened_again_with_less_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    connect(path, read_only=False).close()
    ask = "SELECT current_setting('memory_limit')"
    with connect(path, read_only=True) as first, connect(path, read_only=True) as second:
        before = second.execute(ask).fetchone()
        with connect(path, read_only=True, memory="200MB") as third:
            assert third.execute(ask).fetchone() == first.execute(ask).fetchone() != before
