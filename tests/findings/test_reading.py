"""Findings files: what is right is read, and every fault of every file is named with its line."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import SiteError
from builder.findings.citation import CitationError, parse_citation
from builder.findings.finding import Citation, refuse
from builder.findings.reading import LARGEST, read_finding, read_folder
from tests.findings.writing import RIGHT, finding_text, write_finding

PATH = Path("findings/tide.md")


def faults_of(text: str | bytes) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    found, faults = read_finding(content, PATH)
    assert (found is None) == bool(faults)
    return [str(fault) for fault in faults]


def test_a_finding_is_what_its_file_says() -> None:
    text = finding_text(
        "See [[pico-chat/L02.o_proj.u00#max/7|the first]].\n",
        directions="\n  - pico-chat/L02.o_proj.u00#max\n"
        "  - {id: pico-lora/L00.down_proj.u01, hash: 0123456789abcdef}",
        examples="['pico-chat/L02.o_proj.u00#min/12']",
        tags="[backdoor, backdoor, chat]",
    )
    found, faults = read_finding(text.encode(), PATH)
    assert faults == []
    assert found is not None
    finding = found[0]
    assert (finding.name, finding.page) == ("tide", "findings/tide.html")
    assert finding.claim == RIGHT["claim"]
    assert (finding.severity, finding.status, finding.reviewer) == ("high", "open", "A. Reader")
    assert finding.date == datetime.date(2026, 11, 21)
    assert finding.tags == ("backdoor", "chat")
    assert finding.citations == (
        Citation("pico-chat", "L02.o_proj.u00", 8, pole="max"),
        Citation("pico-lora", "L00.down_proj.u01", 9, "0123456789abcdef"),
        Citation("pico-chat", "L02.o_proj.u00", 10, pole="min", document=12),
        Citation("pico-chat", "L02.o_proj.u00", 13, pole="max", document=7, text="the first"),
    )
    assert [item.direction for item in finding.directions] == [
        "L02.o_proj.u00",
        "L00.down_proj.u01",
    ]
    assert [item.document for item in finding.examples] == [12, 7]
    assert finding.cites("pico-lora")
    assert not finding.cites("pico-lora", "L02.o_proj.u00")


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
def test_line_endings_and_a_byte_order_mark_change_nothing(ending: str) -> None:
    text = finding_text("One [[pico-chat/L02.o_proj.u00]].\n\nTwo.\n")
    plain = read_finding(text.encode(), PATH)[0]
    other = read_finding(("\ufeff" + text.replace("\n", ending)).encode("utf-8"), PATH)[0]
    assert plain is not None
    assert other is not None
    assert plain[0] == other[0]


def test_a_date_may_stand_in_quotes() -> None:
    assert faults_of(finding_text(date="'2026-11-21'")) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"claim": None}, "findings/tide.md:1: claim: needed, but missing"),
        ({"claim": "''"}, "findings/tide.md:2: claim: "),
        ({"claim": "[a, b]"}, "findings/tide.md:2: claim: "),
        ({"severity": "awful"}, "tide.md:3: severity: unknown 'awful'; known are critical, high"),
        ({"status": "done"}, "tide.md:4: status: unknown 'done'; known are open, confirmed"),
        ({"reviewer": "' '"}, "tide.md:5: reviewer: "),
        ({"date": "yesterday"}, "tide.md:6: date: no date such as 2026-11-21 (found 'yesterday')"),
        ({"date": "2026-11-31"}, "tide.md:6: date: "),
        ({"date": "2026-11-21 10:00:00"}, "tide.md:6: date: no date such as"),
        ({"severty": "high"}, "tide.md:8: unknown 'severty'; known are claim, severity"),
        ({"directions": "pico-chat"}, "tide.md:7: directions: "),
        ({"directions": "\n  - pico-chat/a\n  - nonsense"}, "tide.md:9: directions: 'nonsense' is"),
        ({"directions": "[pico-chat/a#up]"}, "tide.md:7: directions: 'up' is no pole"),
        ({"directions": "[pico-chat/a@0g]"}, "tide.md:7: directions: '0g' after the @ is no"),
        ({"directions": "[pico-chat/a#max/1]"}, "is an example; put it under `examples`"),
        ({"directions": "[{hash: 0123456789abcdef}]"}, "is `run/direction` or {id, hash}"),
        ({"directions": "[{id: pico-chat/a@0123456789abcdef, hash: '0123456789abcdef'}]"}, "twice"),
        ({"directions": "[]"}, "tide.md:1: cites no direction"),
        ({"examples": "[pico-chat/a#max]"}, "tide.md:8: examples: 'pico-chat/a#max' names no doc"),
        ({"examples": "[pico-chat/a#max/x]"}, "tide.md:8: examples: 'x' is no document"),
        ({"tags": "[1]"}, "tide.md:8: tags: "),
        ({"claim": "&a x", "tags": "[*a]"}, "anchors (&) and aliases (*) are not read"),
        ({"claim": '"a\x07b"'}, "tide.md:2: holds U+0007"),
        ({"claim": "{unclosed"}, "not valid YAML"),
        ({"claim": "[" * 50_000}, "nested too deeply"),
        ({"tags": "[a]\ntags: [b]"}, "tide.md:9: tags: stands twice, first on line 8"),
        ({"claim": "!!python/object:os.system x"}, "could not determine a constructor"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_a_fault_of_the_front_matter_is_named_with_its_line(
    entries: dict[str, Any], said: str
) -> None:
    found = faults_of(finding_text(**entries))
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a\n\nb [[nonsense]] c", "tide.md:11: 'nonsense' is no citation"),
        ("a\nb [[pico-chat/a#up]]", "tide.md:10: 'up' is no pole"),
        ("[[pico-chat/a|]]", "has no text after the bar"),
        ("![a picture](x.png)", "tide.md:9: images are not shown"),
        ("* one\n* [x](javascript:alert(1))", "tide.md:10: link to 'javascript:alert(1)'"),
        ("[x](JaVaScRiPt:alert(1))", "links lead to http, https or mailto"),
        ("[x](data:text/html,hello)", "links lead to"),
        ("[x](file:///etc/passwd)", "links lead to"),
        ("[x](//example.org/a)", "links lead to"),
        ("[x](/a)", "links lead to"),
        ("[x]()", "links lead to"),
        ("<vbscript:x>", "links lead to"),
        ("[x][1]\n\n[1]: javascript:1", "links lead to"),
        ("[x](http:a)", "links lead to"),
    ],
)
def test_a_fault_of_the_body_is_named_with_its_line(body: str, said: str) -> None:
    found = faults_of(finding_text(body))
    assert any(said in fault for fault in found), found


def test_brackets_in_code_or_after_a_backslash_cite_nothing() -> None:
    assert faults_of(finding_text("`[[a]]` and \\[[b]]\n\n    [[c]]\n")) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"---\nclaim: \xff\xfe\n---\n", "tide.md:2: is not UTF-8 text"),
        (b"", "tide.md:1: has no front matter"),
        (b"# A heading\n", "tide.md:1: has no front matter"),
        (b"---\nclaim: x\n", "tide.md:1: the front matter has no end"),
        (b"---\n- a\n- b\n---\n", "holds no `key: value` lines"),
        (b"---\n---\n", "holds no `key: value` lines"),
        (b"---\n" + b"x" * LARGEST, "is larger than"),
    ],
)
def test_a_file_that_is_no_finding_is_refused(content: bytes, said: str) -> None:
    (fault,) = faults_of(content)
    assert said in fault


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_become_faults(content: bytes) -> None:
    for text in (content, b"---\n" + content + b"\n---\n", finding_text().encode() + content):
        found, faults = read_finding(text, PATH)
        assert (found is None) == bool(faults)


@given(st.text(max_size=60))
def test_a_citation_is_read_back_as_it_was_written_or_refused(text: str) -> None:
    for written in (text, f"pico-chat/{text}", f"pico-chat/a#{text}", f"pico-chat/a#max/{text}"):
        try:
            found = parse_citation(written, 1)
        except CitationError:
            continue
        again = parse_citation(found.written, 1)
        assert (again.run, again.direction) == (found.run, found.direction)
        assert (again.pole, again.document) == (found.pole, found.document)


def test_all_files_of_a_folder_are_read_and_all_faults_told_at_once(tmp_path: Path) -> None:
    write_finding(tmp_path, "right.md")
    write_finding(tmp_path, "one.md", severity="awful", claim=None)
    write_finding(tmp_path, "two.md", "[[nonsense]]")
    (tmp_path / "README.md").write_text("How we audit.")
    (tmp_path / ".hidden.md").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    found, faults, warnings = read_folder(tmp_path)
    assert [finding.name for finding, _ in found] == ["right"]
    assert [str(warning) for warning in warnings] == [
        f"{tmp_path / 'notes.txt'}: not read; findings are *.md files in the folder itself"
    ]
    with pytest.raises(SiteError) as raised:
        refuse(faults)
    lines = str(raised.value).splitlines()
    assert lines[0].startswith("findings: 3 faults")
    assert [line.strip().split(": ")[0] for line in lines[1:]] == [
        f"{tmp_path}/one.md:1", f"{tmp_path}/one.md:2", f"{tmp_path}/two.md:9",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["index.md", "a b.md", "ärger.md", "-a.md"])
def test_a_name_that_can_be_no_address_is_refused(tmp_path: Path, name: str) -> None:
    write_finding(tmp_path, name)
    found, faults, _ = read_folder(tmp_path)
    assert found == []
    assert len(faults) == 1


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_finding(tmp_path, "tide.md")
    write_finding(tmp_path, "Tide.MD")
    _, (fault,), _ = read_folder(tmp_path)
    assert "its page would be that of Tide.MD" in str(fault)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = write_finding(tmp_path / "elsewhere", "secret.md")
    folder = tmp_path / "findings"
    write_finding(folder, "own.md")
    (folder / "other.md").symlink_to(outside)
    (folder / "same.md").symlink_to(folder / "own.md")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "folder.md").mkdir()
    found, faults, _ = read_folder(folder)
    assert [finding.name for finding, _ in found] == ["own", "same"]
    assert [fault.file.name for fault in faults] == ["folder.md", "loop.md", "other.md"]
    assert "leads out of the folder" in faults[2].text


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="no folder of findings"):
        read_folder(tmp_path / "nothing")
