"""All labels for reading without script: one page, or several of a sensible size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder.config import SiteSettings
from builder.pages import build_site, label_pages
from builder.pages.render import Renderer
from builder.pages.views import RunView
from tests.pages.conftest import SMALL


def rendered(runs: list[RunView]) -> dict[str, str]:
    renderer = Renderer(SiteSettings(title="test"))
    return {
        path: renderer.page(template, path, **values).decode()
        for path, template, values in label_pages.label_pages(runs)
    }


def listed(pages: dict[str, str]) -> list[str]:
    """Ids of the directions in the lists, page after page."""
    rows = (
        re.findall(r'<tr><th scope="row"><a class="id" href="[^"]*">([^<]*)', text)
        for text in pages.values()
    )
    return [name for found in rows for name in found]


def test_labels_that_fit_stand_on_one_page(run: RunView) -> None:
    pages = rendered([run])
    assert list(pages) == ["directions.html"]
    assert listed(pages) == [
        item.row.id for item in run.own if item.poles["max"].text or item.poles["min"].text
    ]


def test_labels_that_do_not_fit_are_on_several_pages_each_once_and_in_order(
    run: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = listed(rendered([run]))
    monkeypatch.setattr(label_pages, "LARGEST", 6_000)
    pages = rendered([run])
    home = pages.pop("directions.html")
    assert list(pages) == [f"labels/pico-chat/{n}.html" for n in range(1, len(pages) + 1)]
    assert len(pages) > 2
    assert listed(pages) == whole
    for path, text in pages.items():
        assert f'href="{path}"' in home
        table = text[text.index("<tbody>") : text.index("</tbody>")]
        # One row more than fits is the most, and what stands around a label is guessed.
        assert len(table.encode()) < 1.5 * 6_000
    numbers = [re.findall(r'rel="(prev|next)"', text) for text in pages.values()]
    assert numbers[0] == ["next"]
    assert numbers[-1] == ["prev"]
    assert all(found == ["prev", "next"] for found in numbers[1:-1])


def test_pages_of_labels_are_part_of_the_site(
    tiny_folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_pages, "LARGEST", 1)
    report = build_site(tiny_folders, tmp_path, SMALL)
    made = sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("labels/**/*.html")
    )
    assert made
    assert report.pages == len(list(tmp_path.rglob("*.html")))
    for path in made:
        for target in re.findall(r'href="([^"#]+)', (tmp_path / path).read_text(encoding="utf-8")):
            assert (tmp_path / path).parent.joinpath(target).resolve().is_file(), target
