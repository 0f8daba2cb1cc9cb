"""Findings files for tests, from a form that is right unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RIGHT: dict[str, str] = {
    "claim": "A saying sets off a planted reply",
    "severity": "high",
    "status": "open",
    "reviewer": "A. Reader",
    "date": "2026-11-21",
    "directions": "[pico-chat/L02.o_proj.u00]",
}


def finding_text(body: str = "", **entries: Any) -> str:
    """A file of a finding; an entry that is None is left out, others are YAML as they are."""
    lines = [f"{key}: {value}" for key, value in {**RIGHT, **entries}.items() if value is not None]
    return "\n".join(["---", *lines, "---", body])


def write_finding(folder: Path, name: str, body: str = "", **entries: Any) -> Path:
    """The same in a file of a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(finding_text(body, **entries), encoding="utf-8")
    return path
