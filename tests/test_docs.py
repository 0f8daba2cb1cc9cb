"""The documentation names what there is: columns, shard files, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder import cli
from builder.activations.shard_files import SHARD_FILES
from builder.config import known_settings
from builder.findings import SEVERITIES, STATUSES
from builder.findings.reading import KEYS, read_finding
from builder.pages.api.changes import KINDS
from builder.pages.api.form import SCHEMA_VERSION as API_VERSION
from builder.pages.api.schemas import FORMS
from builder.records import ROLES
from builder.store.schema import SCHEMA, SCHEMA_VERSION
from builder.store.tables import LEVELS, TABLES, TEXTS

ROOT = Path(__file__).parent.parent
DATA_MODEL = (ROOT / "docs" / "data-model.md").read_text(encoding="utf-8")
LANGUAGE_MODELS = (ROOT / "docs" / "language-models.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(table: str) -> str:
    """The documentation of one table, up to the next."""
    start = DATA_MODEL.index(f"`{table}` —")
    following = re.search(r"\n(`\w+` —|## )", DATA_MODEL[start + 1 :])
    assert following
    return DATA_MODEL[start : start + 1 + following.start()]


@pytest.mark.parametrize(
    ("table", "body"), re.findall(r"CREATE TABLE (\w+) \((.*?)\);", SCHEMA, flags=re.DOTALL)
)
def test_every_column_of_the_database_is_documented(table: str, body: str) -> None:
    flat = re.sub(r"STRUCT\(.*?\)", "STRUCT", body)
    columns = re.findall(r"(?:^|,)\s*([a-z_]+) [A-Z]", flat)
    assert columns
    for column in columns:
        assert f"`{column}`" in section(table), (table, column)


@pytest.mark.parametrize("name", SHARD_FILES)
def test_every_column_of_the_shard_files_is_documented(name: str) -> None:
    table = name.removesuffix(".parquet")
    (line,) = re.findall(rf"^\| `{table}` \| .*$", DATA_MODEL, flags=re.MULTILINE)
    for column in SHARD_FILES[name].names:
        assert f"`{column}`" in line, (name, column)


def test_the_schema_version_and_the_roles_are_those_of_the_code() -> None:
    assert f"Schema version {SCHEMA_VERSION}." in DATA_MODEL
    for index, role in enumerate(ROLES):
        assert f"{index} `{role}`" in DATA_MODEL


def test_every_command_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    ([a-z]+)(?: |$)", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(commands) >= 9
    for command in commands:
        assert f"`weightatlas {command}" in README, command


def test_every_setting_and_flag_of_labelling_is_documented(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["label", "--help"])
    flags = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help", "--set"}
    assert len(flags) >= 7
    for flag in flags:
        assert f"`{flag}" in LANGUAGE_MODELS, flag
    for name in known_settings():
        if name.startswith("label."):
            assert f"`{name}`" in LANGUAGE_MODELS, name


def test_every_table_and_setting_of_a_site_is_documented() -> None:
    for name in (*TABLES, *TEXTS):
        assert f"`{name}`" in API, name
    for name in (
        "site.downloads",
        "site.url",
        "site.authors",
        "CITATION.cff",
        *LEVELS,
        *FORMS,
        *KINDS,
    ):
        assert name in API, name
    assert f"`schema_version` is {API_VERSION}" in API


def test_every_flag_of_exports_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    flags = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help"}
    assert len(flags) >= 6
    for flag in flags:
        assert flag in text, flag


def test_the_finding_in_the_readme_is_one() -> None:
    (text,) = re.findall(r"```markdown\n(.*?)```", README, flags=re.DOTALL)
    found, faults = read_finding(text.encode(), Path("findings/heron.md"))
    assert faults == []
    assert found is not None
    assert [item.document for item in found[0].examples] == [2239]


def test_every_key_and_value_of_a_finding_is_documented() -> None:
    for name in (*KEYS, *SEVERITIES, *STATUSES, "site.findings", "--findings"):
        assert re.search(rf"`[^`]*{name}[^`]*`", FINDINGS), name


def test_files_that_documents_name_exist() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), (path.name, target)
