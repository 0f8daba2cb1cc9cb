"""The JSON files of a site: their form, that they say what the run holds, and hostile texts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from builder.errors import SiteError
from builder.pages.api import as_json, run_json, without_nothing
from builder.pages.api.direction import EXAMPLES
from builder.pages.api.model import run_file
from builder.pages.api.written import number
from builder.pages.views import RunView
from builder.records import ANY_ROLE, POLES
from builder.store import RunStore
from tests.pages.texts import HIDDEN


def _refuse(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def load(path: Path) -> Any:
    return json.loads(path.read_bytes(), parse_constant=_refuse)


def schema_of(site: Path, path: Path) -> Draft202012Validator:
    """The shipped schema that a file of ``api/`` is to follow."""
    parts = path.relative_to(site / "api").parts
    name = "site" if len(parts) == 1 else "run" if parts[-1] == "index.json" else "direction"
    return Draft202012Validator(load(site / "api" / "schema" / f"{name}.json"))


def files(site: Path) -> list[Path]:
    return [path for path in (site / "api").rglob("*.json") if path.parent.name != "schema"]


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_every_file_follows_the_schema_that_the_site_ships(
    which: str, request: pytest.FixtureRequest
) -> None:
    site: Path = request.getfixturevalue(which)
    found = files(site)
    assert len(found) >= 18
    for path in found:
        schema_of(site, path).validate(load(path))


def test_the_shipped_schemas_are_schemas_and_refuse_other_files(site: Path) -> None:
    for path in (site / "api" / "schema").iterdir():
        Draft202012Validator.check_schema(load(path))
    path = next(path for path in files(site) if path.name != "index.json")
    good = load(path)
    without = {key: value for key, value in good.items() if key != "poles"}
    for bad in (good | {"other": 1}, without, good | {"sigma": "large"}):
        with pytest.raises(ValidationError):
            schema_of(site, path).validate(bad)


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_files_are_strict_json_in_plain_ascii(which: str, request: pytest.FixtureRequest) -> None:
    for path in files(request.getfixturevalue(which)):
        assert path.read_bytes().isascii()
        load(path)


def test_every_address_in_the_files_leads_to_a_file_of_that_size_and_digest(site: Path) -> None:
    index = load(site / "api" / "index.json")
    assert [model["run"] for model in index["models"]] == ["pico-chat", "pico-lora"]
    for model in index["models"]:
        assert (site / model["page"]).is_file()
        for file in model["files"]:
            content = (site / file["path"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (
                len(content), hashlib.sha256(content).hexdigest(),
            )  # fmt: skip
        run = load(site / model["json"])
        assert run["counts"] == model["counts"]
        for brief in run["directions"]:
            assert (site / brief["page"]).is_file()
            direction = load(site / brief["json"])
            assert direction["page"] == brief["page"]
            assert direction["content_hash"] == brief["content_hash"]


def test_a_direction_says_what_the_run_holds(
    site: Path, run: RunView, run_folders: list[Path]
) -> None:
    with RunStore(run_folders[0] / "run.duckdb") as store:
        for item in run.directions:
            found = load(site / "api" / run.name / f"{item.name}.json")
            assert found["id"] == item.row.id
            assert found.get("sigma") == number(item.row.sigma)
            assert [tuple(pair) for pair in found.get("promoted", [])] == [
                (token, number(logit)) for token, logit in item.row.promoted
            ]
            assert {(row["role"], row["n"]) for row in found["ranges"]} == {
                (extent.role, extent.n) for extent in item.ranges
            }
            for pole in POLES:
                view, said = item.poles[pole], found["poles"][pole]
                answers = said.get("answers", [])
                assert said["state"] == view.state
                assert [answer["labeler"] for answer in answers] == [
                    answer.labeler for answer in view.answers
                ]
                assert (answers[0].get("text") if answers else None) == view.text
                scores = answers[0].get("scores", []) if answers else []
                if view.score:
                    assert scores[0].get("f1") == number(view.score.score.f1)
                    assert scores[0].get("beats") == number(view.score.beats)
                kept = store.examples(item.row.id, pole=pole, role=ANY_ROLE)[:EXAMPLES]
                for example, row in zip(kept, said["examples"], strict=True):
                    quoted = "".join(row.get(part, "") for part in ("before", "peak", "after"))
                    assert quoted in example.window.text
                    assert (row["doc_id"], row["value"]) == (
                        example.window.doc_id, number(example.value),
                    )  # fmt: skip
                    assert row["token"] == example.window.start + example.peak


def test_base_ranges_and_shifts_are_told_where_the_base_was_scanned(site: Path) -> None:
    run = load(site / "api" / "pico-lora" / "index.json")
    direction = load(site / run["directions"][0]["json"])
    assert {row["model"] for row in direction["ranges"]} == {"tuned", "base"}
    assert direction["shifts"]


def test_failures_are_told_as_failures(site: Path) -> None:
    found = [
        answer
        for path in files(site)
        for pole in load(path).get("poles", {}).values()
        for answer in pole.get("answers", ())
        if "failure" in answer
    ]
    assert found
    assert all(answer["failure"]["reason"] and "text" not in answer for answer in found)


def test_hidden_characters_come_back_as_they_were(hostile_site: Path) -> None:
    text = json.dumps([load(path) for path in files(hostile_site)], ensure_ascii=False)
    assert load(hostile_site / "api" / "index.json")["models"][0]["title"].endswith(
        "\u202e{{ 7*7 }}"
    )
    missing = [name for character, name in HIDDEN.items() if character not in text]
    assert len(missing) < len(HIDDEN) / 2, missing


def test_half_a_surrogate_pair_breaks_nothing(run: RunView) -> None:
    broken = dataclasses.replace(run, title="\ud800 title", facts={"\udfff": "\ud801"})
    found = json.loads(as_json(without_nothing(run_file(broken))))
    assert found["title"] == "\ud800 title"
    assert found["facts"] == {"\udfff": "\ud801"}


def test_local_paths_are_cut(site: Path) -> None:
    for path in files(site):
        assert b"somebody" not in path.read_bytes()


def test_a_name_that_the_data_has_is_refused(run: RunView) -> None:
    taken = dataclasses.replace(run, name="schema")
    with pytest.raises(SiteError, match="schema"):
        run_json(taken)


def test_a_direction_takes_about_five_kilobytes(site: Path) -> None:
    sizes = [path.stat().st_size for path in files(site) if path.name != "index.json"]
    assert sum(sizes) / len(sizes) < 6_000


@given(st.floats())
def test_a_number_has_four_digits_or_is_nothing(value: float) -> None:
    found = number(value)
    if not math.isfinite(value):
        assert found is None
    else:
        assert found == pytest.approx(value, rel=5.1e-4)
        assert math.copysign(1, found or 1.0) == 1 or (found or 0) < 0


def test_what_is_not_there_is_left_out_and_zero_is_there() -> None:
    held: dict[str, Any] = {
        "a": None,
        "b": "",
        "c": [],
        "d": {"e": {}},
        "f": 0,
        "g": False,
        "h": [{"i": None}, 0.0],
    }
    assert without_nothing(held) == {"f": 0, "g": False, "h": [{}, 0.0]}
