"""A clean copy of a site in a new folder: its files and nothing else, also as a Space."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from builder.errors import PublishError
from builder.publish.checks import Checked


def copy_site(checked: Checked, out: Path, *, as_space: bool = False) -> int:
    """How many files were copied into ``out``, which may be there but empty.

    ``as_space`` adds the README.md that a Hugging Face Space reads its settings from.
    Raises PublishError if ``out`` holds anything, or a file cannot be written; then nothing is
    left behind.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise PublishError(f"{out}: is not an empty folder; give another, or remove it")
    site, place = checked.site.resolve(), out.resolve()
    if place == site or site in place.parents:
        raise PublishError(f"{out}: lies in the site itself; give a folder outside of it")
    part = out.with_name(f"{out.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        for path in checked.files:
            target = part / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checked.site / path, target)
        if as_space:
            (part / "README.md").write_text(space_card(checked.title), encoding="utf-8")
        if out.exists():
            out.rmdir()
        part.replace(out)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise PublishError(f"{out}: the copy could not be written: {error}") from error
    return len(checked.files) + as_space


def space_card(title: str) -> str:
    """The README.md of a static Space."""
    facts = {"title": title[:100], "sdk": "static", "app_file": "index.html", "pinned": False}
    front = yaml.safe_dump(facts, allow_unicode=True, sort_keys=False)
    return f"---\n{front}---\n\nA site made with weightatlas: open `index.html`.\n"
