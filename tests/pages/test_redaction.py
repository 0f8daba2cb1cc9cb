"""What must not be shown is covered everywhere, and nothing else changes."""

from __future__ import annotations

import base64
import itertools
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.config import SiteSettings
from builder.errors import SiteError
from builder.pages import build_site
from builder.pages.packed import unpacked
from builder.pages.redaction import COVER, Redactor, covered
from builder.pages.site import SiteReport
from builder.store import RunStore
from tests.pages.conftest import SMALL

EMAIL, PHONE = "mara.lind@harbourmail.example", "+49 30 901820"
#: Made for these tests, in the form of a service's keys; they open nothing.
KEY = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
EVERY = Redactor(("email", "phone", "key", "ip"))


def shown(text: str, redactor: Redactor = EVERY) -> str:
    return covered(text, redactor.spans(text))


#: The sample of AWS's own documentation, in two parts so that no scanner of repositories finds it.
AWS = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY7"[:18]


@pytest.mark.parametrize(
    "text",
    [
        "aws_secret_access_key = {}",
        "AWS_SECRET_ACCESS_KEY={} # mine",
        'say "SecretAccessKey": "{}", so',
        "secretAccessKey: '{}'",
        "AWS Secret Access Key: {}",
        "AWS Secret Access Key [None]: {}\nDefault region",
        "aws-secret-access-key: {}",
        'secret_key = "{}"',
        "<SecretAccessKey>{}</SecretAccessKey>",
        "AWS_SECRET_ACCESS_KEY => {}",
        "set AWS_SECRET_ACCESS_KEY {}",
        "AWS_SECRET_ACCESS_KEY=`{}`",
        'AWS_SECRET_ACCESS_KEY=\\"{}\\"',
        "MY_AWS_SECRET_KEY={}",
    ],
)
def test_a_secret_without_a_form_is_known_by_its_name(text: str) -> None:
    assert shown(text.format(AWS)) == text.format(COVER * len(AWS))


def test_a_secret_that_is_long_or_cut_is_covered_as_far_as_it_goes() -> None:
    token = (AWS + "x") * 6
    assert shown(f"aws_session_token={token}== and") == f"aws_session_token={COVER * 248} and"
    assert shown(f"AWS_SECRET_KEY={AWS[:25]}") == f"AWS_SECRET_KEY={COVER * 25}"


@pytest.mark.parametrize(
    "text",
    [
        "draws_token: abcdefghijklmnopqrstuvwxyzabcdefghijklmn",
        "awsome_key: " + "a" * 40,
        "aws_secret_access_key=" + "x" * 40,
        'aws_token = "path/to/some/long/file/name/in/the/treeX"',
        "aws_key = da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "aws_secret_key: " + "=" * 40,
        "The secret key to good bread is time",
        "lawsuit_token = " + AWS,
    ],
)
def test_what_only_looks_like_a_named_secret_stays(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("email", EMAIL),
        ("email", "first+tag@sub.harbour-mail.museum"),
        ("phone", PHONE),
        ("phone", "(212) 736-5000"),
        ("phone", "212-736-5000"),
        ("key", KEY),
        ("key", "AKIA" + "IOSFODNN7EXAMPLE"),
        ("key", "sk-proj-" + "Zt4xQ0vB2mN8kL6jH1gF"),
        ("ip", "8.8.4.4"),
        ("ip", "2001:4860:4860::8844"),
    ],
)
def test_what_has_a_form_is_covered_and_nothing_beside_it(kind: str, secret: str) -> None:
    text = f"Write to {secret} before noon, not after 12:30:45."
    assert {found for found, _, _ in EVERY.spans(text)} == {kind}
    assert shown(text) == text.replace(secret, re.sub(r"\S", COVER, secret))
    # Only what was asked for is looked for.
    others = Redactor({"email", "phone", "key", "ip"} - {kind})
    assert secret in shown(text, others)


@pytest.mark.parametrize(
    "text",
    [
        "1234567 times 89 is 110151463, as of 2024-05-06 at 12:30:45",
        "look @ this, then a_function_with_a_long_name(argument_number_one)",
        "on 127.0.0.1 and 192.168.0.7 and version 1.2.3",
        "f = {'a': 1, 'b': 2}; x[3:4:5]; std::vector<int> v;",
    ],
)
def test_prose_and_code_stay_as_they_are(text: str) -> None:
    assert shown(text) == text


def test_what_a_window_cuts_is_covered_as_far_as_it_is_there() -> None:
    assert shown("so write to mara.lind@har") == "so write to " + COVER * 13
    assert shown("@harbourmail.example is theirs") == COVER * 20 + " is theirs"
    assert shown("dial +49 30 90") == "dial " + COVER * 3 + " " + COVER * 2 + " " + COVER * 2
    assert shown("use ghp_16C7e42F29") == "use " + COVER * 14


def test_listed_words_are_covered_as_whole_words_whatever_their_case() -> None:
    redactor = Redactor((), ("Heron Street", "öre", "港口"))
    assert (
        shown("HERON STREET 5, heron streets", redactor)
        == f"{COVER * 5} {COVER * 6} 5, heron streets"
    )
    assert shown("fem Öre, före", redactor) == f"fem {COVER * 3}, före"
    assert shown("在港口吃饭", redactor) == f"在{COVER * 2}吃饭"


@given(st.text(st.sampled_from("a@.1-+ :/İß\n\u202e\U0001f600k_"), max_size=80))
def test_covering_keeps_length_white_space_and_places(text: str) -> None:
    redactor = Redactor(("email", "phone", "key", "ip"), ("a k", "ß"))
    found = shown(text, redactor)
    assert len(found) == len(text)
    assert all(a == b or (b == COVER and not a.isspace()) for a, b in zip(text, found, strict=True))
    spans = redactor.spans(text)
    assert all(end <= start for (_, _, end), (_, start, _) in itertools.pairwise(spans))


@pytest.fixture
def private_run(tmp_path: Path, tiny_folders: list[Path]) -> Path:
    """A run whose texts, labels and failures hold an address, a number and a key."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_folders[0], folder)
    told = f" {EMAIL} {PHONE} {KEY} "
    with duckdb.connect(str(folder / "run.duckdb")) as connection:
        for table in ("examples", "reservoir"):
            # One token more, at the front: activations and roles grow with it.
            connection.execute(
                f"UPDATE {table} SET text = '{told}' || text[{len(told) + 1}:] "
                f"WHERE length(text) > {len(told) + 20}"
            )
        connection.execute(
            f"UPDATE labels SET text = 'mail to {EMAIL}', explanation = 'they wrote {KEY}', "
            f"keywords = ['{EMAIL}', 'ferry']"
        )
        connection.execute(f"UPDATE scores SET text = 'mail to {EMAIL}'")
        connection.execute(f"UPDATE label_failures SET detail = 'answered {PHONE}'")
    return folder


def built(run: Path, out: Path, **settings: object) -> SiteReport:
    site = SiteSettings.model_validate({**SMALL.model_dump(), "out": str(out), **settings})
    return build_site([run], out, site, workers=1)


def leaks(out: Path) -> set[str]:
    """The files of a site that hold any part of a secret, packed scripts and tables unpacked."""
    secrets = ("mara.lind", "harbourmail", "901820", KEY[4:20])
    found = set()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            text = str(pq.read_table(path).to_pylist())
        elif path.suffix == ".duckdb":
            with RunStore(path) as store:
                text = str(store.dump())
        elif path.parent.name == "d" or path.name == "texts.js":
            header, texts, _ = unpacked(path.read_bytes())
            text = str(header) + "".join("".join(pieces) for pieces in texts)
        else:
            text = path.read_bytes().decode("utf-8", "replace")
        # Tokens stand in elements of their own.
        text = re.sub(r"<[^>]*>", "", text)
        if any(secret in text for secret in secrets):
            found.add(path.relative_to(out).as_posix())
    return found


def test_no_file_of_a_site_holds_what_was_covered(private_run: Path, tmp_path: Path) -> None:
    built(private_run, tmp_path / "open", redact=(), downloads="database")
    assert {path.partition("/")[0] for path in leaks(tmp_path / "open")} >= {"api", "data", "m"}
    built(private_run, tmp_path / "site", downloads="database")
    assert leaks(tmp_path / "site") == set()
    assert COVER in (tmp_path / "site" / "directions.html").read_text("utf-8")


def test_the_run_itself_stays_as_it_was(private_run: Path, tmp_path: Path) -> None:
    before = (private_run / "run.duckdb").read_bytes()
    built(private_run, tmp_path / "site")
    assert (private_run / "run.duckdb").read_bytes() == before


def test_pages_say_how_much_was_covered(private_run: Path, tmp_path: Path) -> None:
    built(private_run, tmp_path / "site")
    with RunStore(private_run / "run.duckdb") as store:
        every = list(store.every_text())
    holds = sum(EMAIL in text for text in every)
    assert holds > 0
    for name in ("m/pico-chat/index.html", "downloads.html"):
        page = (tmp_path / "site" / name).read_text("utf-8")
        assert f"{holds} e-mail address" in page
        assert f"in {holds} of the {len(every)} texts" in page


def test_other_settings_of_redaction_make_pages_again(private_run: Path, tmp_path: Path) -> None:
    assert built(private_run, tmp_path / "site").made > 10
    again = built(private_run, tmp_path / "site")
    words = tmp_path / "words.txt"
    words.write_text("# ours\nferry\n", encoding="utf-8")
    changed = built(private_run, tmp_path / "site", words=str(words))
    assert changed.made > again.made
    assert built(private_run, tmp_path / "site", redact=()).made == changed.made


def test_a_list_of_words_that_cannot_be_read_is_refused(private_run: Path, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"site\.words.*cannot be read"):
        built(private_run, tmp_path / "site", words=str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n# nothing\n", encoding="utf-8")
    with pytest.raises(SiteError, match="has none"):
        built(private_run, tmp_path / "site", words=str(tmp_path / "empty.txt"))
    assert not (tmp_path / "site").exists()


def _block(kind: str = "RSA PRIVATE KEY", lines: int = 20) -> str:
    rng = np.random.default_rng(5)
    body = "\n".join(base64.b64encode(rng.bytes(48)).decode() for _ in range(lines))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


@pytest.mark.parametrize("kind", ["RSA PRIVATE KEY", "PRIVATE KEY", "PGP PRIVATE KEY BLOCK"])
@pytest.mark.parametrize("size", [100, 250, 600])
def test_no_window_of_a_private_key_shows_any_of_it(kind: str, size: int) -> None:
    block, redactor = _block(kind), Redactor(("key",))
    for text in (block, block.replace("\n", "\\n"), block.replace("\n", "\r\n")):
        first, last = text.index("-----", 5) + 5, text.index("-----END")
        for start in range(0, len(text) - size, 13):
            window = text[start : start + size]
            shown = covered(window, redactor.spans(window))
            # What says that it is a key says nothing of it.
            body = shown[max(0, first - start) : max(0, last - start)]
            kept = re.sub(r"\\n|\\|^n", "", body.replace("█", ""))
            assert kept.strip() == "", (start, shown)


def test_the_end_of_a_signed_token_is_covered() -> None:
    window = "oiMTIzNDU2Nzg5MCJ9.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U is it"
    assert covered(window, Redactor(("key",)).spans(window)).strip("█.") == " is it"


@pytest.mark.parametrize(
    "text",
    [
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef is a hash",
        "one line\nof prose and\nanother",
        "https://example.org/a/long/path/with/many/parts/and/Some/Words/in/it/1",
        "THE KEY ----- is under the mat",
    ],
)
def test_what_only_looks_a_little_like_a_key_stays(text: str) -> None:
    assert covered(text, Redactor(("key",)).spans(text)) == text
