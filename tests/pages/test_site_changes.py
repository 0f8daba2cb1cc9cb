"""What changed between two sites: every kind of change, gates, and files that mean harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import cli
from builder.errors import SiteError
from builder.pages.api.changes import KINDS, Change, _pairs, site_changes
from builder.pages.api.reading import read_site
from builder.pages.api.run_form import BriefDirection

Edit = Callable[[list[dict[str, Any]]], object]


@pytest.fixture
def old(site: Path, tmp_path: Path) -> Path:
    """The data of a built site."""
    return _data_of(site, tmp_path / "old")


def _data_of(site: Path, folder: Path) -> Path:
    for name in ("api/index.json", "api/pico-chat/index.json", "api/pico-lora/index.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site / name, folder / name)
    return folder


def _edited(old: Path, edit: Edit) -> Path:
    """A second site, in which the directions of the first run were edited in place."""
    new = old.with_name("new")
    shutil.copytree(old, new, dirs_exist_ok=True)
    place = new / "api" / "pico-chat" / "index.json"
    run = json.loads(place.read_bytes())
    edit(run["directions"])
    place.write_text(json.dumps(run), encoding="utf-8")
    return new


def _scored(directions: list[dict[str, Any]]) -> dict[str, Any]:
    """A score with an interval that leaves room on both sides."""
    for direction in directions:
        score: dict[str, Any] = direction["poles"]["max"].get("score", {})
        low, high = score.get("f1_interval", (0, 1))
        if low > 0.05 and high < 0.95:
            return score
    raise AssertionError("no such score")


def test_a_site_has_no_changes_against_itself(old: Path) -> None:
    found = site_changes(old, old)
    assert found.changes == ()
    assert found.matched > 20
    assert found.counts() == dict.fromkeys(KINDS, 0)


def test_each_kind_of_change_is_found(old: Path) -> None:
    def edit(directions: list[dict[str, Any]]) -> None:
        directions[0]["poles"]["max"] = {"state": "label", "label": "other", "labeler": "x"}
        directions[1]["id"] = "L09.o_proj.u00"
        directions[2]["content_hash"] = "0" * 16
        del directions[3]
        directions.append(dict(directions[0], id="L11.o_proj.u00", content_hash="1" * 16))

    before = read_site(old)[1]["pico-chat"]["directions"]
    found = site_changes(old, _edited(old, edit))
    by_kind = {kind: [c for c in found.changes if c.kind == kind] for kind in KINDS}
    (label,) = by_kind["relabelled"]
    assert (label.id, label.pole, label.new) == (before[0]["id"], "max", "other")
    assert label.old == before[0]["poles"]["max"].get("label")
    assert by_kind["moved"] == [
        Change("moved", "pico-chat", "L09.o_proj.u00", None, before[1]["id"], "L09.o_proj.u00")
    ]
    (changed,) = by_kind["changed"]
    assert (changed.id, changed.new) == (before[2]["id"], "0" * 16)
    assert [change.id for change in by_kind["lost"]] == [before[3]["id"]]
    assert [change.id for change in by_kind["new"]] == ["L11.o_proj.u00"]


def test_a_label_that_went_is_a_change_of_label(old: Path) -> None:
    def edit(directions: list[dict[str, Any]]) -> None:
        pole = next(d["poles"]["max"] for d in directions if d["poles"]["max"]["state"] == "label")
        del pole["label"]
        pole["state"] = "failed"

    (change,) = site_changes(old, _edited(old, edit)).changes
    assert change.kind == "relabelled"
    assert change.new == "(no label: the labeler failed)"


def test_a_score_changed_if_it_leaves_an_interval_or_goes_beyond_a_step(old: Path) -> None:
    def inside(directions: list[dict[str, Any]]) -> None:
        score = _scored(directions)
        score["f1"] = (score["f1"] + score["f1_interval"][0]) / 2

    def outside(directions: list[dict[str, Any]]) -> None:
        score = _scored(directions)
        score["f1"] = score["f1_interval"][1] + 0.01

    assert site_changes(old, _edited(old, inside)).changes == ()
    assert [c.kind for c in site_changes(old, old.with_name("new"), 0.001).changes] == ["rescored"]
    (change,) = site_changes(old, _edited(old, outside)).changes
    assert (change.kind, change.pole) == ("rescored", "max")
    assert site_changes(old, old.with_name("new"), 1.0).changes == ()


def test_a_score_that_came_or_went_is_a_change(old: Path) -> None:
    def edit(directions: list[dict[str, Any]]) -> None:
        del _scored(directions)["f1"]

    new = _edited(old, edit)
    (gone,) = site_changes(old, new, 1.0).changes
    (come,) = site_changes(new, old, 1.0).changes
    assert (gone.kind, gone.new) == ("rescored", None)
    assert (come.old, come.new) == (None, gone.old)


def test_a_model_that_went_takes_its_directions_along(old: Path) -> None:
    new = old.with_name("new")
    shutil.copytree(old, new)
    index = json.loads((new / "api" / "index.json").read_bytes())
    del index["models"][1]
    (new / "api" / "index.json").write_text(json.dumps(index))
    found = site_changes(old, new)
    assert (found.new_runs, found.lost_runs) == ((), ("pico-lora",))
    assert {change.kind for change in found.changes} == {"lost"}
    assert len(found.changes) == len(read_site(old)[1]["pico-lora"]["directions"])
    assert site_changes(new, old).counts()["new"] == len(found.changes)


def _direction(name: str, content_hash: str) -> BriefDirection:
    poles: Any = {"max": {"state": "none"}, "min": {"state": "none"}}
    return {
        "id": name, "content_hash": content_hash, "page": "p", "json": "j", "kind": "delta",
        "poles": poles,
    }  # fmt: skip


_SIDE = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6, unique_by=lambda pair: pair[0]
).map(lambda pairs: [_direction(f"id{name}", f"hash{mark}") for name, mark in pairs])


@given(_SIDE, _SIDE, st.randoms(use_true_random=False))
def test_every_direction_is_in_one_pair_whatever_the_order(
    old: list[BriefDirection], new: list[BriefDirection], random: Any
) -> None:
    pairs = _pairs(old, new)
    assert sorted(a["id"] for a, _ in pairs if a) == sorted(d["id"] for d in old)
    assert sorted(b["id"] for _, b in pairs if b) == sorted(d["id"] for d in new)
    assert all(
        a["id"] == b["id"] or a["content_hash"] == b["content_hash"] for a, b in pairs if a and b
    )
    ids = {(a and a["id"], b and b["id"]) for a, b in pairs}
    random.shuffle(old)
    random.shuffle(new)
    assert {(a and a["id"], b and b["id"]) for a, b in _pairs(old, new)} == ids


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"schema_version": 99}',
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "models": NaN}',
        b"[" * 200_000,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
        b'{"schema_version": 1, "models": [{"run": "../../secret"}]}',
    ],
)
@pytest.mark.parametrize("name", ["api/index.json", "api/pico-chat/index.json"])
def test_a_damaged_file_is_named(old: Path, name: str, content: bytes) -> None:
    (old / name).write_bytes(content)
    with pytest.raises(SiteError, match=r"index\.json"):
        site_changes(old, old)


@pytest.mark.parametrize("name", ["../pico-chat", "/pico-chat", "..", "", "pico-lora", "A", "x\n"])
def test_a_run_is_read_from_its_own_place_only(old: Path, name: str) -> None:
    place = old / "api" / "index.json"
    index = json.loads(place.read_bytes())
    index["models"][0]["run"] = name
    place.write_text(json.dumps(index))
    with pytest.raises(SiteError):
        site_changes(old, old)


@pytest.mark.parametrize(
    "edit",
    [
        lambda directions: directions.append(dict(directions[0])),
        lambda directions: directions[0]["poles"].pop("min"),
        lambda directions: directions[0].update(id=7),
        lambda directions: directions[0]["poles"]["max"].update(state="odd"),
    ],
)
def test_a_run_of_another_form_is_refused(old: Path, edit: Edit) -> None:
    with pytest.raises(SiteError, match="pico-chat"):
        site_changes(old, _edited(old, edit))


def test_a_missing_run_and_a_folder_without_site_are_said(old: Path, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="holds no site with data"):
        site_changes(tmp_path / "nothing", old)
    (old / "api" / "pico-lora" / "index.json").unlink()
    with pytest.raises(SiteError, match="cannot be read"):
        site_changes(old, old)


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [("", 0), ("lost", 0), ("relabelled", 1), ("lost, relabelled", 1), ("any", 1), ("odd", 2)],
)
def test_the_exit_code_is_a_gate(
    old: Path, fail_on: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(directions: list[dict[str, Any]]) -> None:
        directions[0]["poles"]["min"].update(state="label", label="\x1b[31mred\u202e \ud800")

    new = _edited(old, edit)
    assert cli.main(["diff", str(old), str(new), "--fail-on", fail_on]) == code
    said = capsys.readouterr()
    if code == 2:
        assert "odd" in said.err
    else:
        assert "1 relabelled" in said.out
        assert "\\x1b[31mred\\u202e" in said.out
        assert "\x1b" not in said.out
        assert "\u202e" not in said.out


def test_changes_come_as_json(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(directions: list[dict[str, Any]]) -> None:
        del directions[0]

    assert cli.main(["diff", str(old), str(_edited(old, edit)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == dict.fromkeys(KINDS, 0) | {"lost": 1}
    assert found["changes"][0]["kind"] == "lost"
    assert cli.main(["diff", str(old), str(old), "--step", "-1"]) == 2
