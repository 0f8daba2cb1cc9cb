"""A trace holds what a loop over documents, directions and tokens sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from builder.activations.tokens import TokenizedDocument
from builder.errors import MonitorError
from builder.monitor.traces import Tracer
from builder.records import Hookpoint
from tests import micro
from tests.activations import scanning
from tests.monitor.making import SINK_FACTOR, model, pieces, tracer

DOCUMENTS = micro.documents(25, seed=3)


@pytest.mark.parametrize("sink_factor", [SINK_FACTOR, 1.1])
def test_traces_are_what_a_loop_sees(sink_factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = scanning.SETTINGS.model_copy(update={"sink_factor": sink_factor})
    monkeypatch.setattr(scanning, "SETTINGS", changed)
    watching = tracer(sink_factor=sink_factor)
    found = {trace.piece.document.doc_id: trace for trace in watching.traces(pieces(DOCUMENTS))}
    directions = micro.make_directions().directions
    left_out = 0
    for seen in scanning.look(DOCUMENTS, model()):
        trace = found.pop(seen.item.document.doc_id)
        for place, direction in enumerate(directions):
            np.testing.assert_allclose(
                trace.activations[:, place], seen.values[place], rtol=0, atol=2e-5
            )
            usable = seen.usable[direction.hookpoint.layer]
            assert (trace.counts[:, place] == usable).all()
            left_out += int((~usable[~seen.item.special]).sum())
    assert not found
    assert (left_out > 0) == (sink_factor < 2), "attention sinks"


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
def test_batches_change_nothing_but_rounding(batch_tokens: int) -> None:
    alone = {t.piece.document.doc_id: t for t in tracer(1).traces(pieces(DOCUMENTS))}
    for trace in tracer(batch_tokens).traces(pieces(DOCUMENTS)):
        other = alone.pop(trace.piece.document.doc_id)
        np.testing.assert_allclose(trace.activations, other.activations, rtol=0, atol=2e-5)
        assert (trace.counts == other.counts).all()
    assert not alone


def test_repeated_context_of_a_further_piece_does_not_count() -> None:
    split = pieces(DOCUMENTS, max_tokens=24, long_documents="split", overlap=6)
    further = [item for item in split if item.piece]
    assert further
    for trace in tracer().traces(further):
        assert not trace.counts[: trace.piece.context].any()
        assert trace.counts[trace.piece.context :].any()


def test_the_model_is_left_as_it_was_whoever_stops_looking() -> None:
    layers = list(model().layers)
    for _ in tracer(1).traces(pieces(DOCUMENTS)):
        break
    assert all(not layer._forward_hooks for layer in layers)
    assert list(model().backbone.layers) == layers


def test_directions_of_another_model_are_refused() -> None:
    directions = micro.make_directions()
    far = dataclasses.replace(directions.directions[0], hookpoint=Hookpoint(9, "down_proj"))
    for wrong, said in (((far,), "the model has 3 decoder layers"), ((), "no directions")):
        with pytest.raises(MonitorError, match=said):
            Tracer(
                model(),
                dataclasses.replace(directions, directions=wrong),
                sink_factor=SINK_FACTOR,
                batch_tokens=100,
            )


def test_a_stream_that_is_no_number_is_an_error() -> None:
    broken = micro.make_model()
    with torch.no_grad():
        for parameter in broken.layers[1].parameters():
            parameter.fill_(torch.nan)
    watching = Tracer(broken, micro.make_directions(), sink_factor=SINK_FACTOR, batch_tokens=100)
    first = pieces(DOCUMENTS)[0]
    assert isinstance(first, TokenizedDocument)
    with pytest.raises(MonitorError, match="NaN or Inf"):
        list(watching.traces([first]))
