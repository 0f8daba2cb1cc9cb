"""Only pages that would differ are made again, and what is kept is what would have been made."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.comparison import compare_runs
from builder.config import SiteSettings
from builder.execute import Files
from builder.pages import build_site, direction_job
from builder.pages.folder import MANIFEST
from builder.pages.nearby import Comparison
from builder.pages.site import SiteReport
from builder.records import Score
from builder.store import RunStore
from builder.store.schema import connect
from tests.pages.conftest import SMALL, files_of
from tests.pages.fixture import make_run

pytestmark = pytest.mark.slow

#: What no label says, so that whatever shows it can be found.
UNHEARD = "a label that nobody has given before"

Comparisons = Mapping[Path, Sequence[Comparison]]


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few directions, of which each has some of the others near it."""
    folder = tmp_path_factory.mktemp("remaking") / "pico"
    return make_run(folder, name="pico", title="Pico", seed=4, layers=2, ranks=2, documents=16)


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))


#: Pages of every site that are of no run.
SHARED = 8


class Builder:
    """Builds the site of some runs again and again; ``making`` is told which pages are made."""

    def __init__(
        self, runs: Sequence[Path], out: Path, making: set[str], comparisons: Comparisons
    ) -> None:
        self.runs, self.out, self.comparisons = runs, out, comparisons
        self.settings, self._making = SMALL, making
        self.report = self.build()
        assert self._making == self.pages()

    def build(self) -> SiteReport:
        self._making.clear()
        self.report = build_site(self.runs, self.out, self.settings, self.comparisons, workers=1)
        # The pages of a model and those that all share are made every time.
        assert self.report.made == len(self._making) + len(self.runs) + SHARED
        return self.report

    def pages(self) -> set[str]:
        """The pages of all directions."""
        names = (path.relative_to(self.out).as_posix() for path in self.out.glob("m/*/*.html"))
        return {name for name in names if not name.endswith("/index.html")}

    def showing(self, text: str) -> set[str]:
        """Those of them that say this."""
        return {name for name in self.pages() if text in (self.out / name).read_text("utf-8")}

    def rebuilt(self) -> set[str]:
        """The pages of directions that a build makes now; checks that all is as if new."""
        self.build()
        made, fresh = set(self._making), self.out.with_name("fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        build_site(self.runs, fresh, self.settings, self.comparisons, workers=1)
        assert files_of(self.out) == files_of(fresh)
        return made


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The pages of directions that are made in this test."""
    found: set[str] = set()
    original = direction_job.direction_files

    def spied(*given: Any, **options: Any) -> Iterator[Files]:
        for files in original(*given, **options):
            found.update(name for name in files if name.endswith(".html"))
            yield files

    monkeypatch.setattr("builder.pages.site.direction_files", spied)
    return found


@pytest.fixture
def site(run: Path, tmp_path: Path, making: set[str]) -> Builder:
    """The site of one run, built."""
    return Builder([run], tmp_path / "site", making, {})


@pytest.fixture
def pair(tiny_folders: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of two runs, to be changed."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tiny_folders]


def page_of(direction: str) -> str:
    return f"m/pico/{direction.lower()}.html"


def relabel(run: Path, direction: str, pole: str, **changes: object) -> None:
    """Changes what the labels of a pole say."""
    with RunStore(run / "run.duckdb", read_only=False) as store:
        found = store.labels(candidates=True)
        labels = [
            dataclasses.replace(label, **changes)  # type: ignore[arg-type]
            if (label.direction, label.pole) == (direction, pole) and label.is_chosen
            else label
            for label in found
        ]
        assert labels != found
        store.replace_labels([*labels, *store.label_failures()])


def execute(run: Path, statement: str) -> None:
    with connect(run / "run.duckdb", read_only=False) as connection:
        connection.execute(statement)


def test_a_second_build_makes_no_page_of_a_direction(site: Builder) -> None:
    before = {path: path.stat().st_mtime_ns for path in site.out.rglob("*") if path.is_file()}
    assert site.rebuilt() == set()
    assert (site.report.written, site.report.removed) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("direction", "pole"), [("L01.o_proj.u00", "max"), ("L00.o_proj.u01", "min")]
)
def test_a_new_label_makes_its_own_page_and_those_that_show_it(
    site: Builder, run: Path, direction: str, pole: str
) -> None:
    before = files_of(site.out)
    relabel(run, direction, pole, text=UNHEARD)
    made = site.rebuilt()
    assert made == site.showing(UNHEARD)
    assert page_of(direction) in made
    assert 1 < len(made) < len(site.pages())
    after = files_of(site.out)
    changed = {name for name in after if after[name] != before[name]}
    assert {name for name in changed if name in site.pages()} == made


def test_an_explanation_makes_the_page_that_shows_it_alone(site: Builder, run: Path) -> None:
    relabel(run, "L01.o_proj.u00", "max", explanation="Something new.")
    assert site.rebuilt() == {page_of("L01.o_proj.u00")}


def test_a_label_of_another_run_makes_the_pages_that_list_it(
    pair: list[Path], tmp_path: Path, making: set[str]
) -> None:
    site = Builder(pair, tmp_path / "site", making, compare_runs(pair).near)
    relabel(pair[1], "L00.o_proj.u00", "max", text=UNHEARD)
    made = site.rebuilt()
    assert made == site.showing(UNHEARD)
    assert {"m/pico-chat/l00.o_proj.u00.html", "m/pico-lora/l00.o_proj.u00.html"} <= made


def test_another_run_that_is_named_anew_is_linked_by_its_new_address(
    pair: list[Path], tmp_path: Path, making: set[str]
) -> None:
    # Compared, and nothing found near: the pages say so with a link to the other model.
    comparisons = {pair[0]: [Comparison(pair[1], 2, 0.3, {})]}
    site = Builder(pair, tmp_path / "site", making, comparisons)
    with RunStore(pair[1] / "run.duckdb", read_only=False) as store:
        store.update_meta({"name": "renamed"})
    assert {name for name in site.rebuilt() if name.startswith("m/pico-chat/")} == {
        "m/pico-chat/l00.o_proj.u00.html", "m/pico-chat/l00.down_proj.u00.html",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "is_all"),
    [
        ({"title": "Another atlas"}, True),
        ({"examples": 5}, True),
        ({"context": 9}, True),
        ({"largest_mb": 300}, False),
        ({"out": "elsewhere"}, False),
    ],
)
def test_settings_that_pages_show_make_all_of_them(
    site: Builder, changes: dict[str, object], is_all: bool
) -> None:
    site.settings = SiteSettings(**{**SMALL.model_dump(), **changes})
    assert site.rebuilt() == (site.pages() if is_all else set())


def test_another_version_of_the_program_makes_all_pages(
    site: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.pages.site.program", lambda: "another")
    assert site.rebuilt() == site.pages()


@pytest.mark.parametrize(
    "change",
    [
        "examples SET duplicates = duplicates + 7 WHERE any_place = 1",
        "examples SET text = upper(text) WHERE place = 0 AND pole = 1",
        "examples SET activations = list_reverse(activations) WHERE any_place = 0",
        "histograms SET counts = list_reverse(counts) WHERE model = 0",
        "ranges SET mean = mean + 0.01 WHERE model = 0",
        "sources SET q_value = 0.0101 WHERE pole = 0",
        "saturation SET gain = 9.5 WHERE pole = 1",
        "quantile_examples SET value = 0.9 WHERE place = 0",
        "quantile_examples SET activations = list_reverse(activations) WHERE place = 1",
        "directions SET gap = 0.777",
    ],
)
def test_a_change_of_what_was_measured_makes_the_page_of_its_direction(
    site: Builder, run: Path, change: str
) -> None:
    before = files_of(site.out)
    direction = "(SELECT direction FROM directions WHERE id = 'L01.down_proj.u00')"
    table, _, rest = change.partition(" ")
    joined = "AND" if "WHERE" in rest else "WHERE"
    execute(run, f"UPDATE {table} {rest} {joined} direction = {direction}")
    assert site.rebuilt() == {page_of("L01.down_proj.u00")}
    after = files_of(site.out)
    own = ("m/pico/l01.down_proj.u00.html", "m/pico/d/l01.down_proj.u00.js")
    assert any(after[name] != before[name] for name in own)


def test_activations_of_the_base_are_shown_once_all_texts_have_them(
    site: Builder, run: Path
) -> None:
    direction = "(SELECT direction FROM directions WHERE id = 'L01.down_proj.u00')"
    page = site.out / page_of("L01.down_proj.u00")
    for table, is_all in (("examples", False), ("quantile_examples", True)):
        change = f"UPDATE {table} SET base_activations = activations WHERE direction = {direction}"
        execute(run, change)
        assert site.rebuilt() == {page_of("L01.down_proj.u00")}
        assert ('id="show-base"' in page.read_text("utf-8")) is is_all


@pytest.mark.parametrize(
    "change",
    ["duplicates = duplicates + 1", "source = 'elsewhere'", "text = upper(text)",
     "roles = list_transform(roles, lambda role: 1::UTINYINT)"],
)  # fmt: skip
def test_other_random_documents_make_all_pages_of_their_run(
    site: Builder, run: Path, change: str
) -> None:
    execute(run, f"UPDATE reservoir SET {change} WHERE place < 30")
    assert site.rebuilt() == site.pages()


def rescore(run: Path, old: Score, f1: float) -> None:
    """Gives a label's score another F1."""
    with RunStore(run / "run.duckdb", read_only=False) as store:
        scores = store.scores(candidates=True, judged=True)
        changed = [
            dataclasses.replace(s, f1=f1)
            if dataclasses.replace(s, judged=()) == old else s
            for s in scores
            if s.labeler == old.labeler
        ]  # fmt: skip
        assert changed != [s for s in scores if s.labeler == old.labeler]
        store.replace_scores(old.labeler, changed)


def test_a_new_score_makes_its_own_page_and_those_that_show_its_f1(
    site: Builder, run: Path
) -> None:
    with RunStore(run / "run.duckdb") as store:
        chosen = {label.text for label in store.labels() if label.labeler != "keywords"}
        old = next(s for s in store.scores() if s.scorer == "detection" and s.text in chosen
                   and s.direction.startswith(("L01.o_proj", "L01.down_proj")))  # fmt: skip
    rescore(run, old, 0.8642)
    made = site.rebuilt()
    assert made == site.showing("F1&nbsp;0.86") | {page_of(old.direction)}
    assert len(made) < len(site.pages())


def test_another_score_of_a_control_makes_all_pages(site: Builder, run: Path) -> None:
    # Even where no label's standing changes by it: it is drawn beside every score.
    with RunStore(run / "run.duckdb") as store:
        scores = [s for s in store.scores() if s.scorer == "detection"]
    moved = []
    for control in (s for s in scores if "random" in s.direction or "shuffled" in s.direction):
        f1 = control.f1 or 0.0
        others = [s.f1 for s in scores if s.f1 is not None and s.direction != control.direction]
        low = max((other for other in others if other < f1), default=0.0)
        moved.append((f1 - low, control, low + 0.001))
    _, control, f1 = max(moved, key=lambda item: item[0])
    rescore(run, control, f1)
    assert site.rebuilt() == site.pages()


def test_one_more_verdict_makes_the_page_that_lists_it(site: Builder, run: Path) -> None:
    with RunStore(run / "run.duckdb", read_only=False) as store:
        scores = store.scores(candidates=True, judged=True)
        at = next(at for at, s in enumerate(scores) if s.direction.startswith("L01.down_proj"))
        first, *rest = scores[at].judged
        turned = first._replace(verdict=0.0 if first.verdict else 1.0)
        scores[at] = dataclasses.replace(scores[at], judged=(turned, *rest))
        labeler = scores[at].labeler
        store.replace_scores(labeler, [s for s in scores if s.labeler == labeler])
    assert site.rebuilt() == {page_of(scores[at].direction)}


@pytest.mark.parametrize("name", ["m/pico/l01.o_proj.u00.html", "m/pico/d/l01.o_proj.u00.js"])
@pytest.mark.parametrize("harm", ["shortened", "removed", "emptied", "replaced"])
def test_a_damaged_file_is_made_again(site: Builder, name: str, harm: str) -> None:
    path = site.out / name
    content = path.read_bytes()
    path.unlink()
    if harm == "replaced":
        path.mkdir()
        with pytest.raises(Exception, match=re.escape(path.name)):
            site.build()
        path.rmdir()
    elif harm != "removed":
        path.write_bytes(content[:-1] if harm == "shortened" else b"")
    assert site.rebuilt() == {"m/pico/l01.o_proj.u00.html"}
    assert path.read_bytes() == content
    assert site.report.written == 1


def test_pages_of_an_older_manifest_are_made_and_found_the_same(site: Builder) -> None:
    before = files_of(site.out)
    manifest = site.out / MANIFEST
    names = list(json.loads(manifest.read_text("utf-8"))["files"])
    (site.out / "m" / "pico" / "gone.html").write_text("of an older version")
    manifest.write_text(
        json.dumps({"generator": "weightatlas", "files": [*names, "m/pico/gone.html"]})
    )
    assert site.rebuilt() == site.pages()
    assert site.report.removed == 1
    assert files_of(site.out) == before


@pytest.mark.parametrize("then", ["tides", "boats"])
@pytest.mark.parametrize("moved", [0, 1, 5])
def test_after_a_killed_build_nothing_is_taken_for_what_it_is_not(
    site: Builder, run: Path, moved: int, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Texts of one length: pages keep their size to the byte, and only their content tells.
    direction = "L01.o_proj.u00"
    relabel(run, direction, "max", text="tides" * 4)
    site.build()
    before = files_of(site.out)
    relabel(run, direction, "max", text="boats" * 4)
    left = [moved]  # besides the manifest, which is the first
    original = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if site.out in Path(target).parents or Path(target).parent == site.out:
            if left[0] < 0:
                raise KeyboardInterrupt
            left[0] -= 1
        return original(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            site.build()
    assert len([name for name, content in files_of(site.out).items()
                if name != MANIFEST and before.get(name) != content]) == moved  # fmt: skip
    if then == "tides":
        relabel(run, direction, "max", text="tides" * 4)
    site.rebuilt()
