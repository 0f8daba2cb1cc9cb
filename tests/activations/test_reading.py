"""Rows of every source are either documents or counted faults."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from builder.activations import reading
from builder.activations.corpus import Document, Message
from builder.activations.reading import corpus_stamp, read_documents
from builder.activations.rows import CorpusTally
from builder.config import CorpusSettings, Source
from builder.errors import CorpusError
from tests import micro

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
#: The sources of the first documents of two even ones, by seed 0.
PINNED_ORDER = "10001111111010101100"
TEXT = {"text": "a plain text", "source": "elsewhere"}


def settings(*paths: Path, **changes: Any) -> CorpusSettings:
    sources = tuple(Source(path=str(path)) for path in paths)
    return CorpusSettings(sources=sources, **changes)


def write_lines(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(chosen: CorpusSettings) -> tuple[list[Document], CorpusTally]:
    tally = CorpusTally()
    return list(read_documents(chosen, tally)), tally


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_kind_of_file_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        table = pa.table(
            {
                "messages": [CHAT["messages"], None],
                "text": [None, TEXT["text"]],
                "source": ["chats", TEXT["source"]],
            }
        )
        pq.write_table(table, path)
    else:
        write_lines(path, [{**CHAT, "source": "chats"}, TEXT])
    documents, _ = read(settings(path))
    assert documents == [
        Document(0, "chats", messages=(Message("user", "hi"), Message("assistant", "yo"))),
        Document(1, "elsewhere", text="a plain text"),
    ]


def test_sharegpt_rows_are_conversations(tmp_path: Path) -> None:
    row = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}
    documents, _ = read(settings(write_lines(tmp_path / "a.jsonl", [row])))
    assert documents[0].messages == (Message("user", "hi"), Message("assistant", "yo"))


def test_a_datasets_folder_is_read_by_name(tmp_path: Path) -> None:
    place = tmp_path / "named_set"
    place.mkdir()
    write_lines(place / "train.jsonl", [CHAT, CHAT])
    chosen = CorpusSettings(sources=(Source(dataset=str(place), name="named"),))
    documents, _ = read(chosen)
    assert [d.source for d in documents] == ["named", "named"]
    assert documents[0].messages == (Message("user", "hi"), Message("assistant", "yo"))


@pytest.mark.parametrize("name", ["no-such/dataset-anywhere", "///", "a/b/c/d", "x" * 5000])
def test_a_dataset_that_cannot_be_had_is_one_message(name: str) -> None:
    chosen = CorpusSettings(sources=(Source(dataset=name),))
    with pytest.raises(CorpusError, match=f"^{name} .*cannot be loaded"):
        read(chosen)


@pytest.mark.parametrize("error", [IndexError, KeyError, TypeError, AttributeError, EOFError])
def test_whatever_the_datasets_library_raises_is_one_message(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise error("inside")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(CorpusError, match=f"{error.__name__}: .*inside"):
        read(CorpusSettings(sources=(Source(dataset="org/named"),)))


BAD_ROWS = [
    ("{not json", "not valid JSON"),
    ("[1, 2]", "not a JSON object"),
    ({"title": "no text"}, "neither text nor messages"),
    ({"text": "   "}, "empty text"),
    ({"messages": []}, "empty conversation"),
    ({"messages": ["hi"]}, "a message that is not an object"),
    ({"messages": [{"role": "wizard", "content": "hi"}]}, "a message with an unknown role"),
    ({"messages": [{"role": ["a"], "content": "x"}]}, "a message with an unknown role"),
    ({"messages": [{"from": {"a": 1}, "value": "x"}]}, "a message with an unknown role"),
    ({"messages": [{"role": "user", "content": 3}]}, "a message whose content is not text"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_skipped_and_counted_with_its_reason(
    tmp_path: Path, row: Any, reason: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [TEXT, row, *[TEXT] * 200])
    documents, tally = read(settings(path))
    assert len(documents) == 201
    assert documents[1].doc_id == 2
    assert dict(tally.dropped) == {reason: 1}


def test_more_than_one_percent_of_bad_rows_is_refused_with_the_first_places(
    tmp_path: Path,
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [*["{broken"] * 3, *[TEXT] * 200])
    with pytest.raises(CorpusError, match=r"3 of 203 rows.*a\.jsonl line 1: not valid JSON"):
        read(settings(path))
    documents, _ = read(settings(path, max_bad_share=0.05))
    assert len(documents) == 200


@pytest.mark.parametrize("rows", [[], ["", "  "]])
def test_an_empty_corpus_is_refused(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(CorpusError, match="empty"):
        read(settings(write_lines(tmp_path / "a.jsonl", list(rows))))


def test_missing_unknown_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nothing\.jsonl: no such corpus file"):
        corpus_stamp(settings(tmp_path / "nothing.jsonl"))
    unknown = tmp_path / "a.docx"
    unknown.write_text("x")
    with pytest.raises(CorpusError, match="unknown kind of file"):
        corpus_stamp(settings(unknown))
    damaged = tmp_path / "b.jsonl.gz"
    damaged.write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    with pytest.raises(CorpusError, match=r"b\.jsonl\.gz: cannot be read"):
        read(settings(damaged))
    broken = tmp_path / "d.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:10] + b"\xff" * 400)
    with pytest.raises(CorpusError, match=r"d\.jsonl\.gz: cannot be read"):
        read(settings(broken))
    not_parquet = tmp_path / "c.parquet"
    not_parquet.write_bytes(b"PAR1 but no more")
    with pytest.raises(CorpusError, match=r"c\.parquet: cannot be read"):
        read(settings(not_parquet))


def test_folders_and_patterns_name_their_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name}])
    (tmp_path / "notes.md").write_text("not data")
    for place in (tmp_path, tmp_path / "*.jsonl"):
        documents, _ = read(settings(place))
        assert [d.text for d in documents] == ["a", "b", "c"]


def test_limits_hold_over_sources_and_in_each(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "a.jsonl", [TEXT] * 5)
    two = write_lines(tmp_path / "b.jsonl", [TEXT] * 5)
    assert len(read(settings(one, two, max_documents=7))[0]) == 7
    capped = CorpusSettings(
        sources=(Source(path=str(one), max_rows=2), Source(path=str(two), max_rows=3))
    )
    assert [d.doc_id for d in read(capped)[0]] == [0, 1, 2, 3, 4]


def test_lone_surrogates_are_replaced_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "half \\ud83d of a pair"}\n')
    documents, tally = read(settings(path))
    assert documents[0].text == "half \ufffd of a pair"
    assert tally.noted["lone surrogates replaced"] == 1


def test_a_line_too_long_to_hold_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 1 << 20)
    rows = [{"text": "x" * (3 << 20)}, *[TEXT] * 150]
    documents, tally = read(settings(write_lines(tmp_path / "a.jsonl", rows)))
    assert len(documents) == 150
    assert dict(tally.dropped) == {"line longer than 1 MiB": 1}


def test_the_stamp_follows_files_and_settings(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [TEXT])
    before = corpus_stamp(settings(path))
    assert corpus_stamp(settings(path)) == before
    assert corpus_stamp(settings(path, max_documents=1)) != before
    write_lines(path, [TEXT, TEXT])
    assert corpus_stamp(settings(path)) != before


def column_of_bytes(*values: bytes) -> pa.Array:
    """A string column of these bytes, valid UTF-8 or not, as damaged and careless writers leave."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def test_a_parquet_row_that_is_not_utf8_is_a_counted_fault(tmp_path: Path) -> None:
    texts = [b"good"] * 3000
    texts[1500] = b"bad \xff\xfe"
    pq.write_table(pa.table({"text": column_of_bytes(*texts)}), tmp_path / "a.parquet")
    documents, tally = read(settings(tmp_path / "a.parquet"))
    assert len(documents) == 2999
    assert {d.doc_id for d in documents} == set(range(3000)) - {1500}
    assert dict(tally.dropped) == {"a damaged value": 1}
    with pytest.raises(CorpusError, match=r"1 of 3000 rows.*a\.parquet row 1501: a damaged value"):
        read(settings(tmp_path / "a.parquet", max_bad_share=0))


def test_columns_that_no_document_is_made_of_are_not_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([2**62, 0], pa.timestamp("us")),
            "raw": column_of_bytes(b"\xff", b"x"),
            "body.raw": column_of_bytes(b"\xff", b"x"),
            "body": ["one", "two"],
            "origin": ["here", "there"],
            "text": ["not this", "nor this"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    source = Source(path=str(tmp_path / "a.parquet"), text_column="body", source_column="origin")
    documents, _ = read(CorpusSettings(sources=(source,)))
    assert documents == [Document(0, "here", text="one"), Document(1, "there", text="two")]


def test_parquet_rows_without_any_known_column_are_counted_faults(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"2 of 2 rows.*neither text nor messages"):
        read(settings(tmp_path / "a.parquet"))


@pytest.mark.parametrize("start", ["", "\n \n", "\ufeff"])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_that_is_one_json_array_is_called_so(
    tmp_path: Path, indent: int | None, start: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(start + json.dumps([TEXT] * 30, indent=indent), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"one JSON array, but JSON lines \(one object a line\)"):
        read(settings(path))


def test_only_the_first_line_can_begin_an_array(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [*[TEXT] * 300, "[1]"])
    assert dict(read(settings(path))[1].dropped) == {"not a JSON object": 1}


@pytest.mark.parametrize("name", ["x" * 5000 + ".jsonl", "a\0b.jsonl"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(CorpusError):
        corpus_stamp(settings(Path(name)))


def test_a_file_that_cannot_be_opened_for_the_stamp_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [TEXT])

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError, match=r"a\.jsonl: cannot be read: Permission denied"):
        corpus_stamp(settings(path))


def test_the_stamp_tells_how_far_it_is_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = micro.watch_bars(monkeypatch, reading)
    one = write_lines(tmp_path / "a.jsonl", [TEXT])
    two = write_lines(tmp_path / "b.jsonl", [TEXT] * 9)
    corpus_stamp(settings(one, two))
    ((bar, options),) = bars
    assert bar.n == bar.total == one.stat().st_size + two.stat().st_size
    assert (options["unit"], options["unit_scale"], options["disable"]) == ("B", True, None)


def mixed(folder: Path, *weights: float | None, rows: int = 400, **changes: Any) -> CorpusSettings:
    sources = []
    for number, weight in enumerate(weights):
        path = folder / f"{number}.jsonl"
        if not path.exists():
            write_lines(path, [{"text": f"{number}-{row}"} for row in range(rows)])
        sources.append(Source(path=str(path), name=str(number), weight=weight))
    return CorpusSettings(sources=tuple(sources), **changes)


def test_weights_are_the_shares_while_the_sources_last(tmp_path: Path) -> None:
    documents, tally = read(mixed(tmp_path, 6, 3, None, rows=2000, max_documents=1000))
    shares = [tally.documents[name] / 1000 for name in "012"]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.05)
    for name in "012":  # each source in its own order, from its start
        texts = [d.text for d in documents if d.source == name]
        assert texts == [f"{name}-{row}" for row in range(len(texts))]
    assert [d.doc_id for d in documents] == list(range(1000))
    assert not tally.noted.total()


def test_a_seed_gives_the_same_order_anywhere_and_another_seed_another(tmp_path: Path) -> None:
    one, _ = read(mixed(tmp_path, 1, 1, seed=-5))
    again, _ = read(mixed(tmp_path, 1, 1, seed=-5))
    other, _ = read(mixed(tmp_path, 1, 1, seed=6))
    assert one == again
    assert one != other
    assert {d.text for d in one} == {d.text for d in other}
    # PCG64 is the same on every machine; this is its order.
    first = "".join(d.source for d in read(mixed(tmp_path, 1, 1))[0][:20])
    assert first == PINNED_ORDER


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), 1e308, 1e6 + 1, 0.0, -1.0])
def test_weights_that_no_share_follows_from_are_refused(weight: float) -> None:
    with pytest.raises(ValidationError, match="weight"):
        Source(path="a.jsonl", weight=weight)
    assert Source(path="a.jsonl", weight=1e6).weight == 1e6


def test_a_weighted_source_that_ends_before_the_others_is_noted(tmp_path: Path) -> None:
    write_lines(tmp_path / "0.jsonl", [{"text": f"0-{row}"} for row in range(20)])
    documents, tally = read(mixed(tmp_path, 5, 1, 1))
    assert len(documents) == 820
    assert tally.noted["documents of 0, which ran out before others"] == 20
    last = [d.source for d in documents].index("1", 700)
    assert last  # the others go on
    assert len([name for name in tally.noted if "ran out" in name]) == 2


def test_row_caps_and_faults_hold_in_a_mixture(tmp_path: Path) -> None:
    bad = write_lines(tmp_path / "0.jsonl", ["{broken", *[{"text": "x"}] * 300])
    chosen = mixed(tmp_path, 1, 2)
    capped = chosen.sources[1].model_copy(update={"max_rows": 7})
    documents, tally = read(CorpusSettings(sources=(chosen.sources[0], capped)))
    assert dict(tally.documents) == {"0": 300, "1": 7}
    assert dict(tally.dropped) == {"not valid JSON": 1}
    assert tally.rows == len(documents) + 1
    assert {d.doc_id for d in documents} < set(range(tally.rows))
    write_lines(bad, [*["{broken"] * 9, *[{"text": "x"}] * 300])
    with pytest.raises(CorpusError, match=r"9 of 309 rows.*0\.jsonl line 1"):
        read(chosen)


def test_a_datasets_folder_can_be_a_weighted_source(tmp_path: Path) -> None:
    place = tmp_path / "named_set"
    place.mkdir()
    write_lines(place / "train.jsonl", [CHAT] * 30)
    files = mixed(tmp_path, 1, rows=30).sources
    chosen = CorpusSettings(sources=(*files, Source(dataset=str(place), name="named", weight=1)))
    documents, tally = read(chosen)
    assert dict(tally.documents) == {"0": 30, "named": 30}
    assert len({d.source for d in documents[:12]}) == 2
