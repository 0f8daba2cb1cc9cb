"""What the stages hand on to one another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import pipeline
from builder.labels import explain
from builder.labels.evidence import Evidence
from builder.records import ANY_ROLE, Label
from builder.store import RunStore
from tests import micro
from tests.scanned import run_of, scan, write_texts


def test_what_is_held_out_for_scores_is_never_shown_to_the_explainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    source = write_texts(tmp_path / "a.jsonl", [micro.sentence(rng, 9) for _ in range(16)])
    run = run_of(tmp_path / "run", source, scan={"held_out": 6})
    scan(run)
    given: list[Evidence] = []

    def label_poles(evidences: Iterator[Evidence], *_: Any, **__: Any) -> Iterator[Label]:
        for item in evidences:
            given.append(item)
            yield Label(item.direction, item.pole, "keywords", None, "")

    monkeypatch.setattr(explain, "label_poles", label_poles)
    pipeline.make_labels(run)
    with RunStore(run.database_path) as store:
        held_out = {window.doc_id for window in store.held_out()}
        kept = hidden = 0
        for item in given:
            found = store.examples(item.direction, role=ANY_ROLE)
            for shown, is_own in ((item.examples, True), (item.contrast, False)):
                ids = [e.window.doc_id for e in found if (e.pole == item.pole) == is_own]
                wanted = [doc_id for doc_id in ids if doc_id not in held_out]
                assert [example.window.doc_id for example in shown] == wanted
                kept, hidden = kept + len(wanted), hidden + len(ids) - len(wanted)
    assert len(held_out) == 6
    assert kept
    assert hidden
