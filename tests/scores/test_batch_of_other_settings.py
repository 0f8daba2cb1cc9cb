"""Verdicts on their way in a batch are kept, though settings changed before they came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builder.endpoint import batch
from builder.records import Label, Pole
from builder.score_stage import make_scores, plan_scores
from builder.store import RunStore
from tests.endpoint.asking import environment
from tests.endpoint.batch_server import completion_body, serving_batches
from tests.scores.running import judged_by, put_labels, scanned

__all__ = ["environment"]


class Killed(BaseException):
    pass


def _die(*args: object) -> Any:
    raise Killed


def _good(request: dict[str, Any]) -> tuple[int, Any]:
    texts = str(request["body"]["messages"][1]["content"]).count("\ntext: ") - 1
    verdicts = [{"number": at + 1, "fit": 9} for at in range(texts)]
    return 200, completion_body(json.dumps({"verdicts": verdicts}))


def _one(direction: str, pole: Pole) -> list[Label]:
    return [Label(direction, pole, "a-model", f"alpha3 of {direction} {pole}")]


def test_verdicts_that_former_settings_asked_for_are_kept_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PAUSE", 0.01)
    run = scanned(tmp_path / "one")
    put_labels(run, _one)
    with serving_batches(_good) as server:
        former = judged_by(run, server.url)
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_wait", _die)
            with pytest.raises(Killed):
                make_scores(former, batch=True)
        asked = len(server.lines(0))
        other = judged_by(run, server.url, batch=5)
        assert make_scores(other, batch=True) == {"scored": 8, "unparsed_texts": 0}
        more = len(server.lines(1))
        plan = plan_scores(former, batch=True)
        assert plan is not None
        assert (plan.requests, plan.to_ask) == (asked, 0)
        assert make_scores(former, batch=True) == {"scored": 8, "unparsed_texts": 0}
        assert (len(server.batches), server.live) == (2, 0)
    with RunStore(run.database_path) as store:
        (spend,) = store.spend()
    assert (spend.requests, spend.unmetered) == (asked + more, 0)
