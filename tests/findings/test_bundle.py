"""Several findings in one file: they come out as they went in, and nothing is overwritten."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import cli
from builder.errors import ConfigError, SiteError
from builder.findings.bundle import import_findings, join_findings, split_findings
from tests.findings.writing import finding_text

WHERE = Path("findings.txt")
NAMES = st.text(string.ascii_lowercase + "-", min_size=1, max_size=8).map(
    lambda text: f"a{text}.md"
)
LINES = st.one_of(
    st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["=== finding: a.md ===", "\\=== finding: b.md ===", "=== finding: "]),
)


def bundle_of(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "findings.txt"
    path.write_text(join_findings(files), encoding="utf-8")
    return path


@given(st.dictionaries(NAMES, st.lists(LINES, max_size=6), min_size=1, max_size=4))
def test_findings_come_out_of_a_bundle_as_they_went_in(files: dict[str, list[str]]) -> None:
    texts = {name: "\n".join(lines).rstrip("\n") + "\n" for name, lines in files.items()}
    bundle = join_findings(texts)
    found = split_findings(bundle, WHERE)
    assert {name: finding.text for name, finding in found.items()} == texts
    lines = bundle.split("\n")
    assert all(f": {name} =" in lines[finding.line - 1] for name, finding in found.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no finding"),
        ("stray\n=== finding: a.md ===\n", "findings.txt:1: text before the first line"),
        ("=== finding: ../a.md ===\n", "findings.txt:1: '../a.md' is no name"),
        ("=== finding: A.md ===\n", "'A.md' is no name"),
        ("=== finding: a..md ===\n", "'a..md' is no name"),
        ("=== finding: a/b.md ===\n", "'a/b.md' is no name"),
        ("=== finding:  ===\n", "'' is no name"),
        ("=== finding: a.md ===\n=== finding: a.md ===\n", "findings.txt:2: a second finding is"),
    ],
)
def test_a_text_that_is_no_bundle_is_refused(text: str, said: str) -> None:
    with pytest.raises(SiteError) as raised:
        split_findings(text, WHERE)
    assert said in str(raised.value)


def test_the_command_writes_a_file_for_every_finding_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"one.md": finding_text("First.\n"), "two.md": finding_text("=== finding: x.md ===\n")}
    bundle, out = bundle_of(tmp_path, files), tmp_path / "findings"
    command = ["findings", "import", str(bundle), "--out", str(out)]
    assert cli.main(command) == 0
    assert {path.name: path.read_text("utf-8") for path in out.iterdir()} == files
    assert capsys.readouterr().out.splitlines()[:2] == [str(out / "one.md"), str(out / "two.md")]
    assert cli.main(command) == 0
    assert "2 were there already" in capsys.readouterr().out


def test_nothing_is_written_if_a_finding_has_a_fault_or_another_is_there(tmp_path: Path) -> None:
    out = tmp_path / "findings"
    out.mkdir()
    (out / "one.md").write_text("mine")
    (out / "link.md").symlink_to(tmp_path / "elsewhere.md")
    (out / "folder.md").mkdir()
    bundle = bundle_of(
        tmp_path,
        {
            "one.md": finding_text(),
            "two.md": finding_text(severity="awful"),
            "three.md": finding_text(),
            "link.md": finding_text(),
            "folder.md": finding_text(),
        },
    )
    line = bundle.read_text("utf-8").split("\n").index("severity: awful") + 1
    with pytest.raises(SiteError) as raised:
        import_findings(bundle, out)
    said = str(raised.value)
    assert f"{out / 'one.md'}: is there already and differs" in said
    assert f"{out / 'folder.md'}: is there already and differs" in said
    assert f"{out / 'link.md'}: is there already and differs" in said
    assert f"{bundle}:{line}: two.md: severity: unknown 'awful'" in said
    assert sorted(path.name for path in out.iterdir()) == ["folder.md", "link.md", "one.md"]
    assert (out / "one.md").read_text() == "mine"
    assert not (tmp_path / "elsewhere.md").exists()


def test_a_bundle_that_cannot_be_read_is_an_error_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        import_findings(tmp_path / "nothing.txt", tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        import_findings(tmp_path / "latin.txt", tmp_path)
