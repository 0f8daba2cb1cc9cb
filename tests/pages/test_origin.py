"""Where directions come from and what lies near them, as pages say it; and who compares runs."""

from __future__ import annotations

import html
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builder import pipeline
from builder.comparison import Compared, compare_runs
from builder.execute import write_json
from builder.pages import build_site, charts
from builder.pages.nearby import FLOOR, chance_cosine, floor_of
from builder.pages.origin_view import origin
from builder.pages.views import DirectionView, RunView, read_run
from builder.records import CONTROLS, ModelRef
from builder.store import RunStore
from builder.weights.direction_file import load_directions, save_directions
from tests.pages.conftest import SMALL


def text_of(page: Path) -> str:
    """What a reader sees of a page, on one line."""
    blocks = re.sub(r"</?(t[dhr]|d[dt]|p|h\d)\b[^>]*>", " ", page.read_text(encoding="utf-8"))
    plain = re.sub(r"<[^>]*>", "", blocks)
    return " ".join(html.unescape(plain).split())


def direction(site: Path, name: str, run: str = "pico-chat") -> str:
    return text_of(site / "m" / run / f"{name}.html")


@pytest.fixture(scope="module")
def run(run_folders: list[Path]) -> RunView:
    """The first run, read."""
    with RunStore(run_folders[0] / "run.duckdb") as store:
        return read_run(run_folders[0], store)


def item_of(run: RunView, name: str) -> DirectionView:
    return next(item for item in run.directions if item.row.id == name)


def test_a_direction_in_a_group_says_with_which_and_links_to_those_that_were_kept(
    site: Path,
) -> None:
    page = site / "m" / "pico-chat" / "l01.o_proj.u01.html"
    assert (
        "Its singular value cannot be told from those of u02: only the subspace they span "
        "together is determined"
    ) in text_of(page)
    assert '<a href="l01.o_proj.u02.html">u02</a>' in page.read_text(encoding="utf-8")
    long = site / "m" / "pico-chat" / "l00.o_proj.u01.html"
    assert "those of the others from u00 to u05" in text_of(long)
    assert '<a href="l00.o_proj.u00.html">u00</a> to u05:' in long.read_text(encoding="utf-8")
    assert "cannot be told" not in direction(site, "l01.o_proj.u00")


@pytest.mark.parametrize(
    ("group", "shown", "is_span"),
    [
        ((), None, False),
        ((0,), None, False),
        ((0, 1, 2), ["u01", "u02"], False),
        ((0, 1, 2, 3, 4), ["u01", "u02", "u03", "u04"], False),
        ((0, 1, 2, 3, 4, 5), ["u00", "u05"], True),
        ((0, 2, 3, 4, 5, 9), ["u02", "u03", "u04", "u05", "u09"], False),
    ],
)
def test_the_others_of_a_group_are_named(
    run: RunView, group: tuple[int, ...], shown: list[str] | None, is_span: bool
) -> None:
    item = item_of(run, "L02.o_proj.u00")
    found = origin(run, replace(item, row=replace(item.row, group=group))).group
    assert (found and [rank.name for rank in found.ranks]) == shown
    if found:
        assert found.is_span == is_span
        assert all(rank.page is None for rank in found.ranks if int(rank.name[1:]) > 2)


def test_a_singular_value_stands_beside_its_noise_floors(site: Path) -> None:
    above = direction(site, "l02.o_proj.u00")
    assert (
        "The singular value is 2.5 times what the same entries in random places would give and "
        "10 times what the rounding of the stored weights alone would give."
    ) in above
    assert "Not above noise" not in above
    below = direction(site, "l00.o_proj.u00")
    assert "Not above noise: its singular value is 0.83 times what the same entries" in below
    assert "A change without any structure would reach as much." in below


def test_a_floor_that_is_not_known_is_not_named(site: Path, run: RunView) -> None:
    assert "rounding of the stored weights" not in direction(site, "l01.o_proj.u00", "pico-lora")
    item = item_of(run, "L02.o_proj.u00")
    bare = [replace(s, shuffled_floor=math.nan, rounding_floor=0.0) for s in run.spectra]
    assert origin(replace(run, spectra=tuple(bare)), item).noise is None
    assert origin(run, item_of(run, "L02.random.u00")).noise is None


def test_a_direction_says_what_it_reads_from(site: Path, run: RunView) -> None:
    text = direction(site, "l02.o_proj.u00")
    reads = item_of(run, "L02.o_proj.u00").row.reads
    assert re.search(
        r"Reads mostly from Shares of the right .*? attention heads share head \d", text
    )
    assert f"{reads[0][0]} {100 * reads[0][1]:.0f}\N{NO-BREAK SPACE}%".replace("\xa0", " ") in text
    assert re.search(
        r"hold .*? of it\. neurons share neuron \d", direction(site, "l02.down_proj.u00")
    )
    assert "Reads mostly from" not in direction(site, "l00.o_proj.u00")


def test_nearest_directions_are_linked_with_their_labels(site: Path, run: RunView) -> None:
    page = (site / "m" / "pico-chat" / "l02.o_proj.u00.html").read_text(encoding="utf-8")
    table = page[page.index("In this model") :]
    neighbours = item_of(run, "L02.o_proj.u00").row.neighbours
    for name, cosine in neighbours:
        row = table[table.index(name) :]
        row = row[: row.index("</tr>")]
        assert f"{abs(cosine):.2f}" in row
        assert ("as by chance" in row) == (abs(cosine) < chance_cosine(len(run.own), 64))
        poles = item_of(run, name).poles
        assert html.escape(poles["max"].said) in row
    # Turned round from layer to layer, as the fixture made them.
    assert neighbours[0][0] == "L00.o_proj.u00"
    assert {name for name, cosine in neighbours[:3] if cosine < 0} == {
        "L01.o_proj.u00",
        "L03.o_proj.u00",
    }


def test_directions_of_other_models_are_linked_both_ways(site: Path) -> None:
    page = (site / "m" / "pico-chat" / "l00.o_proj.u00.html").read_text(encoding="utf-8")
    assert "In other models of the same base" in page
    assert len(set(re.findall(r"../../m/pico-lora/l0\d.o_proj.u00.html", page))) == 3
    back = (site / "m" / "pico-lora" / "l00.o_proj.u00.html").read_text(encoding="utf-8")
    assert len(set(re.findall(r"../../m/pico-chat/l0\d.o_proj.u00.html", back))) == 3
    alone = direction(site, "l01.down_proj.u02")
    assert re.search(r"nothing near: Pico LoRA \(none of 24 directions at 0\.3\d or more\)", alone)
    assert "same base" not in direction(site, "l01.base.u00")


def test_chance_is_the_floor_where_it_reaches_farther() -> None:
    assert floor_of(1000, 4096) == FLOOR
    assert chance_cosine(1000, 64) == pytest.approx(math.sqrt(2 * math.log(2000) / 64))
    assert floor_of(1000, 64) == chance_cosine(1000, 64) > FLOOR
    assert chance_cosine(0, 64) == 0.0
    assert chance_cosine(100, 1) == 1.0


def test_every_kind_of_control_says_what_it_is(site: Path) -> None:
    for kind, meaning in CONTROLS.items():
        text = direction(site, f"l01.{kind}.u00")
        assert f"A control: {meaning}" in text
        assert ("(model.layers.1.o_proj)" in text) == (kind != "random")
        assert ("its labels mean nothing" in text) == (kind != "base")
        assert "Nearest directions" in text
    assert "80.0 of the base weights" in direction(site, "l01.base.u00")


def test_a_model_page_tells_the_controls_apart(site: Path) -> None:
    page = site / "m" / "pico-chat" / "index.html"
    text = text_of(page)
    assert "controls 16 8 random, 4 base, 4 shuffled" in text
    assert "figure from the weights random shuffled base" in text
    assert "beyond every random and shuffled control" in text
    assert 'class="dots chance"' in page.read_text(encoding="utf-8")
    assert "controls: random, shuffled" in text


def test_spectra_show_their_floors_and_those_of_readers_their_features(site: Path) -> None:
    both = (site / "m" / "pico-chat" / "index.html").read_text(encoding="utf-8")
    assert both.count('class="floor shuffled"') == both.count('class="floor rounding"') == 8
    assert '<span class="line rounding">' in both
    for matrix in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        assert f"<summary><code>{matrix}</code>, 4 layers" in both
    assert "stand in groups whose singular values cannot be told apart" in both
    one = (site / "m" / "pico-lora" / "index.html").read_text(encoding="utf-8")
    assert 'class="floor shuffled"' in one
    assert "rounding" not in one
    assert "Spectral features" not in one


def test_a_chart_without_floors_has_no_lines() -> None:
    sigmas = np.array([2.0, 1.0], dtype=np.float32)
    plain = charts.spectrum(sigmas, 1, 2.0, (math.nan, math.nan))
    assert "floor" not in plain
    drawn = charts.spectrum(sigmas, 1, 2.0, (1.0, math.nan))
    assert 'class="floor shuffled" d="M0 26h150"' in drawn
    assert "shuffled floor 1.00" in drawn


def test_a_chart_of_a_full_spectrum_draws_its_head() -> None:
    many = np.linspace(5, 1, 4000, dtype=np.float32)
    drawn = charts.spectrum(many, 20, 5.0, (math.nan, math.nan))
    assert drawn.count("z") == charts.DRAWN
    assert "4000 singular values" in drawn


def test_the_page_of_a_direction_stays_light(site: Path) -> None:
    sizes = [page.stat().st_size for page in (site / "m").rglob("l0*.html")]
    assert max(sizes) < 140_000


# --- who is compared with whom ---


@pytest.fixture
def pair(tiny_folders: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of two run folders, to be changed."""
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in tiny_folders]


def with_base(folder: Path, base: ModelRef | None) -> None:
    path = folder / "directions.safetensors"
    save_directions(path, replace(load_directions(path), base=base))


def test_runs_of_one_base_are_compared(pair: list[Path]) -> None:
    compared = compare_runs(pair)
    assert compared.faults == ()
    (found,) = compared.near[pair[0]]
    assert (found.other, found.compared) == (pair[1], 2)
    # The two folders are of one seed, so every direction has itself on the other side.
    assert {key: near[0] for key, near in found.near.items()} == {
        key: (key, 1.0) for key in found.near
    }
    assert compare_runs(pair[:1]) == Compared({}, (), ())


def test_runs_of_other_bases_or_of_none_are_not_compared(pair: list[Path]) -> None:
    for base in (ModelRef("pico/chat-base", "e" * 40), None, ModelRef("/models/base")):
        with_base(pair[1], base)
        assert compare_runs(pair) == Compared({}, (), ())


@pytest.mark.parametrize(("digest", "compared"), [("aa", True), ("bb", False), (None, False)])
def test_local_bases_are_the_same_when_their_weights_are(
    pair: list[Path], digest: str | None, compared: bool
) -> None:
    for folder, place, held in zip(pair, ("/one/base", "/two/copy"), ("aa", digest), strict=True):
        with_base(folder, ModelRef(place))
        if held:
            files = {
                f"{place}/model.safetensors": [1, 2, held],
                f"{place}/config.json": [1, 2, place],
                "/elsewhere/model.safetensors": [1, 2, place],
                f"{place}/damaged.bin": None,
            }
            (folder / "stages").mkdir()
            write_json(folder / "stages" / "models.json", files)
    assert bool(compare_runs(pair).near) is compared


def test_a_folder_without_its_directions_is_rendered_and_said(
    pair: list[Path], tmp_path: Path
) -> None:
    (pair[1] / "directions.safetensors").unlink()
    settings = SMALL.model_copy(update={"out": str(tmp_path / "site")})
    report = pipeline.make_site(pair, settings)
    (said,) = [text for text in report.warnings if "compared" in text]
    assert said == "pico-lora: has no directions.safetensors, so it is compared with no model"
    assert "In other models" not in direction(tmp_path / "site", "l00.o_proj.u00")


def test_a_damaged_file_stops_no_site(pair: list[Path], tmp_path: Path) -> None:
    (pair[0] / "directions.safetensors").write_bytes(b"no such thing")
    settings = SMALL.model_copy(update={"out": str(tmp_path / "site")})
    report = pipeline.make_site(pair, settings)
    (said,) = [text for text in report.warnings if "compared" in text]
    assert "is damaged" in said


def test_a_comparison_with_directions_that_were_not_scanned_is_left_out(
    pair: list[Path], tmp_path: Path
) -> None:
    path = pair[1] / "directions.safetensors"
    loaded = load_directions(path)
    first, *rest = loaded.directions
    newer = replace(first, content_hash="0" * 16)
    save_directions(path, replace(loaded, directions=(newer, *rest)))
    found = compare_runs(pair)
    build_site(pair, tmp_path / "site", SMALL, found.near, found.groups)
    for run in ("pico-chat", "pico-lora"):
        page = (tmp_path / "site" / "m" / run / "l00.o_proj.u00.html").read_text("utf-8")
        other = "pico-lora" if run == "pico-chat" else "pico-chat"
        assert f"../../m/{other}/l00.o_proj.u00.html" not in page
