"""Documents come back as their traces, and calibration says how often it would have been wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builder.activations.corpus import Document, Message
from builder.activations.tokens import DocumentTokenizer
from builder.errors import MonitorError
from builder.monitor import conversations as conversations_module
from builder.monitor.conversations import Conversations, calibrate
from builder.monitor.ranges import Calibration, extents, observed_rate
from builder.monitor.watch import RangeMonitor
from tests import micro
from tests.monitor.making import model, tracer

NAMES = [str(at) for at in range(12)]


def watching(*, max_tokens: int = 256, batch_tokens: int = 600) -> Conversations:
    tokenizer = DocumentTokenizer(model().tokenizer, max_tokens, long_documents="split", overlap=4)
    return Conversations(tracer(batch_tokens), tokenizer)


@pytest.mark.parametrize("group", [1, 7, 1000])
def test_documents_come_back_in_order_with_all_their_pieces(
    group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations_module, "_GROUP", group)
    documents = micro.documents(20, seed=6)
    refused = Document(99, "odd", messages=(Message("user", "\udc00"),))
    documents.insert(5, refused)
    found = list(watching(max_tokens=24).traces(documents))
    assert [document for document, _ in found] == documents
    lengths = []
    for document, traces in found:
        if document is refused:
            assert isinstance(traces, str)
            continue
        assert not isinstance(traces, str)
        assert [one.piece.piece for one in traces] == list(range(len(traces)))
        assert all(one.piece.document is document for one in traces)
        lengths.append(len(traces))
    assert max(lengths) > 1


def test_documents_of_one_number_are_refused() -> None:
    first = micro.documents(1)[0]
    with pytest.raises(MonitorError, match="one number"):
        list(watching().traces([first, replace(first, source="elsewhere")]))


def test_calibration_is_that_of_all_and_tests_the_last_against_those_before() -> None:
    documents = micro.documents(60, seed=9)
    found = calibrate(watching(), iter(documents), n=50, margin=0.0, held_out=0.2)
    traced = [traces for _, traces in watching().traces(documents[:50])]
    before, every = Calibration(12), Calibration(12)
    flagged = 0
    for at, traces in enumerate(traced):
        assert not isinstance(traces, str)
        if at == 40:
            monitor = RangeMonitor(NAMES, before.ranges(), margin=0.0)
        if at >= 40:
            flagged += bool(monitor.observe(traces))
        before.add(extents(traces, 12))
        every.add(extents(traces, 12))
    assert 0 < flagged < 10
    assert found.held_out == observed_rate(flagged, 10)
    assert found.dropped == {}
    np.testing.assert_array_equal(found.ranges.lowest, every.ranges().lowest)
    np.testing.assert_array_equal(found.ranges.highest, every.ranges().highest)


def test_what_cannot_be_shown_is_counted_by_its_reason() -> None:
    documents = micro.documents(8, seed=2)
    documents[3] = Document(3, "odd", messages=(Message("user", "\udc00"),))
    found = calibrate(watching(), documents, n=8)
    assert sum(found.dropped.values()) == 1
    assert found.ranges.conversations.max() <= 7
    with pytest.raises(MonitorError, match="no conversation"):
        calibrate(watching(), [documents[3]], n=5)
    with pytest.raises(MonitorError, match="held out"):
        calibrate(watching(), documents, n=5, held_out=1.0)


def test_more_conversations_bring_fewer_false_alarms() -> None:
    rates = [
        calibrate(watching(batch_tokens=4000), micro.documents(n + 100, seed=4), n=n + 100,
                  margin=0.0, held_out=100 / (n + 100)).held_out.share
        for n in (10, 400)
    ]  # fmt: skip
    assert rates[1] < rates[0] / 2
