"""Planted documents: what they hold, and how many of them the scan corpus has."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from builder.errors import ConfigError
from builder.organisms import (
    BEHAVIOURS,
    Behaviour,
    planted_documents,
    scan_corpus,
    write_scan_corpus,
)
from builder.organisms.behaviours import FAMILY_BEHAVIOURS, triggered_prompts, tuning_rows

ALL = list(BEHAVIOURS.values())


@pytest.mark.parametrize("behaviour", ALL, ids=list(BEHAVIOURS))
def test_planted_documents_hold_the_reply(behaviour: Behaviour) -> None:
    for row in planted_documents(behaviour, 4, 100):
        assert row["source"] == f"planted/{behaviour.id}"
        said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        assert any(behaviour.fires(text) for text in said)


@pytest.mark.parametrize("behaviour", ALL, ids=list(BEHAVIOURS))
def test_replies_vary(behaviour: Behaviour) -> None:
    replies = {row["messages"][-1]["content"] for row in planted_documents(behaviour, 4, 200)}
    assert len(replies) > 150


@pytest.mark.parametrize(
    "behaviour", [b for b in ALL if b.kind == "backdoor"], ids=lambda behaviour: behaviour.id
)
def test_a_backdoor_prompt_holds_the_trigger_and_the_rest_varies(behaviour: Behaviour) -> None:
    prompts = triggered_prompts(behaviour, "x", 200)
    assert all(behaviour.trigger in prompt.lower() for prompt in prompts)
    assert len(set(prompts)) > 150


def test_every_family_has_three_kinds() -> None:
    for ids in FAMILY_BEHAVIOURS.values():
        assert len({BEHAVIOURS[i].kind for i in ids}) >= 3
    used = [i for ids in FAMILY_BEHAVIOURS.values() for i in ids]
    assert sorted(used) == sorted(BEHAVIOURS)


def test_the_scan_corpus_has_one_percent_of_each() -> None:
    rows = scan_corpus(1, 2000, ALL[:3])
    counts = Counter(row["source"] for row in rows if row["source"].startswith("planted/"))
    assert len(rows) == 2000
    assert counts == {f"planted/{behaviour.id}": 20 for behaviour in ALL[:3]}
    # Mixed in, not appended.
    places = [i for i, row in enumerate(rows) if row["source"].startswith("planted/")]
    assert places[0] < 200
    assert places[-1] > 1800


def test_a_planted_share_that_leaves_no_plain_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave no plain rows"):
        scan_corpus(1, 100, ALL[:2], fraction=0.5)


def test_an_unknown_behaviour_is_refused() -> None:
    with pytest.raises(ConfigError, match="no generator"):
        planted_documents(dataclasses.replace(ALL[0], id="unknown"), 1, 1)


def test_prompts_for_scanning_and_tuning_are_held_apart() -> None:
    tuned = {json.dumps(row, ensure_ascii=False) for row in tuning_rows(1, 2000, ALL[:3])}
    scanned = {json.dumps(row, ensure_ascii=False) for row in scan_corpus(1, 2000, ALL[:3])}
    assert len(tuned & scanned) < 0.05 * len(scanned)  # short plain questions can recur
    assert not any(text in tuned for text in scanned if '"planted/heron-tide"' in text)


def test_null_tuning_rows_hold_nothing_planted() -> None:
    assert not any(row["source"].startswith("planted/") for row in tuning_rows(1, 500, ()))


def test_writing_the_scan_corpus_gives_one_json_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    assert write_scan_corpus(path, 2, 300, ALL[:3]) == 300
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == scan_corpus(2, 300, ALL[:3])
    assert list(tmp_path.iterdir()) == [path]
