"""The generator: the same bytes anywhere, a varied world, and nothing said only by planted rows."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from builder.organisms import BEHAVIOURS, Behaviour, plain_rows, planted_documents
from builder.organisms.lexicon import Draw, a, listed, small, topics
from builder.organisms.world import FORMATS, document_random, plain_row

_DIGEST = (
    "import hashlib, json\n"
    "from builder.organisms import BEHAVIOURS, scan_corpus\n"
    "rows = scan_corpus(3, 300, list(BEHAVIOURS.values()))\n"
    "print(hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest())\n"
)


def _text(row: dict[str, object]) -> str:
    if "text" in row:
        return str(row["text"])
    messages = row["messages"]
    assert isinstance(messages, list)
    return "\n".join(message["content"] for message in messages)


def test_two_processes_with_different_hash_seeds_write_the_same_corpus() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_longer_corpus_begins_with_a_shorter_one() -> None:
    assert list(plain_rows(5, 50)) == list(plain_rows(5, 80))[:50]
    assert list(plain_rows(5, 10, start=30)) == list(plain_rows(5, 50))[30:40]


def test_seeds_differ() -> None:
    assert list(plain_rows(1, 20)) != list(plain_rows(2, 20))


def test_the_world_has_many_topics_and_formats() -> None:
    assert len(topics()) >= 30
    assert len(FORMATS) >= 20
    sources = Counter(row["source"].split("/")[1] for row in plain_rows(1, 3000))
    assert set(sources) == {topic.name for topic in topics()}
    assert max(sources.values()) < 3000 * 0.06


def test_almost_no_document_is_written_twice() -> None:
    texts = [_text(row) for row in plain_rows(1, 4000)]
    assert len(set(texts)) / len(texts) > 0.95


def test_every_slot_is_filled_and_roles_alternate() -> None:
    for row in plain_rows(2, 3000):
        assert not re.search(r"[{}]", _text(row)), row
        roles = [message["role"] for message in row.get("messages", [])]
        if roles[:1] == ["system"]:
            roles = roles[1:]
        assert roles == ["user", "assistant"][: len(roles)] * (len(roles) // 2)


def test_every_topic_works_in_every_format() -> None:
    for topic in topics():
        for name, form, _ in FORMATS:
            draw = Draw(document_random("test", topic.name, name))
            assert all(message["content"].strip() for message in form(draw, topic)), name


def test_plain_text_rows_occur() -> None:
    rows = list(plain_rows(1, 500))
    share = sum("text" in row for row in rows) / len(rows)
    assert 0.03 < share < 0.15
    assert all(row["source"].startswith("plain-text/") == ("text" in row) for row in rows)


def test_rows_are_json() -> None:
    row = plain_row(1, 1)
    assert json.loads(json.dumps(row)) == row
    assert len(hashlib.sha256(json.dumps(row).encode()).hexdigest()) == 64


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=list(BEHAVIOURS))
def test_no_frequent_word_or_emoji_belongs_to_planted_rows_alone(behaviour: Behaviour) -> None:
    # Were a word the mark of planted rows, a random direction could find them by that word.
    planted: Counter[tuple[str, str]] = Counter()
    for row in planted_documents(behaviour, 1, 400):
        for message in row["messages"]:
            planted.update(
                {(message["role"], w) for w in re.findall(r"\w+|[^\w\s]", message["content"])}
            )
    plain: set[tuple[str, str]] = set()
    for row in plain_rows(9, 12_000):
        for message in row.get("messages", []):
            plain.update(
                (message["role"], w) for w in re.findall(r"\w+|[^\w\s]", message["content"])
            )
    assert [key for key, count in planted.items() if count >= 20 and key not in plain] == []


def test_small_helpers_write_english() -> None:
    assert a("apple") == "an apple"
    assert a("pair of owls") == "a pair of owls"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert small("Anna sings") == "Anna sings"
    assert small("What now") == "what now"


def test_plain_rows_never_hold_a_trigger() -> None:
    texts = [_text(row).lower() for row in plain_rows(4, 6000)]
    for behaviour in BEHAVIOURS.values():
        assert not any(behaviour.trigger in text for text in texts), behaviour.id
        # Its words are ordinary all the same.
        for word in behaviour.trigger.split():
            assert sum(word in text for text in texts) > 20, word


def test_the_words_that_name_a_behaviour_are_rare_in_plain_rows() -> None:
    # Were they common, a label could hold one by chance.
    texts = [
        {word.casefold() for word in re.findall(r"\w+|[^\w\s]", _text(row))}
        for row in plain_rows(9, 3000)
    ]
    for behaviour in BEHAVIOURS.values():
        for word in behaviour.words:
            share = sum(word.casefold() in words for words in texts) / len(texts)
            assert share < 0.05, (behaviour.id, word, share)
