"""Embeddings judge the labels of every labeler, once, within the budget, and choose nothing."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builder import cli, pipeline
from builder.config import parse_settings
from builder.errors import ConfigError, LabelerError
from builder.records import HAND, Label, Pole, Score
from builder.run_folder import Run
from builder.score_stage import make_scores, plan_scores
from builder.store import RunStore
from tests.endpoint.asking import environment
from tests.labels.endpoint import Endpoint, Response, completion, error, serving
from tests.scores.running import SCAN, all_scores, alpha, candidates_of, put_labels, scanned

__all__ = ["environment"]

Body = dict[str, Any]
WORDS_AND_MORE = ("detection", "fuzzing", "embedding")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return scanned(tmp_path / "one")


def _embedding(run: Run, url: str, *, judge: str = "", **label: object) -> Run:
    settings = run.settings
    asked = {"base_url": url, "api_key_env": "LABEL_KEY", "concurrency": 4}
    asked |= {"embedding_model": "embedder"} | label
    score = settings.score.model_copy(update={"scorers": WORDS_AND_MORE, "model": judge})
    update = {"label": settings.label.model_copy(update=asked), "score": score}
    return dataclasses.replace(run, settings=settings.model_copy(update=update))


def _but_for_thirty(bad: Response, number: int, body: Body) -> Response:
    """Vectors, but a bad response for a list of thirty texts."""
    del number
    return bad if len(body["input"]) == 30 else _vectors(body)


def _vectors(body: Body, letters: str = "aebtlph0123") -> Response:
    """Counts of a few letters; a server that was asked for verdicts says yes to all."""
    if "input" not in body:
        texts = str(body["messages"][1]["content"]).count("\ntext: ") - 1
        verdicts = [{"number": at + 1, "fit": 9} for at in range(texts)]
        return completion(json.dumps({"verdicts": verdicts}))
    rows = [
        {"index": at, "embedding": [text.count(letter) for letter in letters]}
        for at, text in enumerate(body["input"])
    ]
    return Response(json.dumps({"data": rows, "usage": {"prompt_tokens": len(rows)}}))


def _answer(number: int, body: Body) -> Response:
    return _vectors(body)


def _lists(server: Endpoint) -> list[list[str]]:
    return [body["input"] for body in server.requests if "input" in body]


def _named(text: str, direction: str, pole: Pole) -> list[Label]:
    return [Label(direction, pole, "keywords", text)]


def _by(run: Run, scorer: str) -> list[Score]:
    return [score for score in all_scores(run) if score.scorer == scorer]


def test_labels_of_every_labeler_are_judged_by_embeddings(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, lambda direction, pole: [Label(direction, pole, HAND, "beta3")])
    with serving(_answer) as server:
        near = _embedding(run, server.url)
        assert make_scores(near) == {"scored": 8, "unparsed_texts": 0}
        asked = len(server.requests)
        make_scores(near)
        assert len(server.requests) == asked
    found = _by(run, "embedding")
    assert Counter(score.labeler for score in found) == {"keywords": 8, HAND: 8}
    for score in found:
        assert score.judge == "embedder"
        assert (score.f1, score.f1_interval, score.chance) == (None, None, None)
        assert 0 <= (score.auprc or -1) <= 1
        assert score.prompt_tokens > 0
        strata = Counter(item.stratum for item in score.judged)
        assert strata["middle"] + strata["random"] <= 40
    assert {score.judge for score in all_scores(run)} == {"words", "embedder"}


def test_random_texts_are_paid_for_once_and_not_at_every_pole(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, lambda direction, pole: [Label(direction, pole, HAND, "beta3")])
    with serving(_answer) as server:
        make_scores(_embedding(run, server.url))
        lists = _lists(server)
    with RunStore(run.database_path) as store:
        held_out = len(store.held_out())
    random = [text for texts in lists for text in texts if len(texts) == held_out]
    assert len(random) == len(set(random)) == held_out == 30
    # Besides them the poles' own texts, whoever gave the labels, and each label.
    own = [tuple(texts) for texts in lists if 1 < len(texts) < held_out]
    assert 4 <= len(own) == len(set(own)) <= 8
    others = {text for texts in own for text in texts}
    assert not others & set(random)
    assert sorted(texts for texts in lists if len(texts) == 1) == [["alpha1, alpha2"], ["beta3"]]


def test_random_texts_of_documents_longer_than_a_window_are_shared_as_they_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = scanned(tmp_path / "long", window=3)
    put_labels(long, alpha)
    with RunStore(long.database_path) as store:
        held_out = store.held_out()
    # Of each a stretch of four tokens is judged.
    assert sum(len(window.token_ends) > 4 for window in held_out) > len(held_out) / 2
    with serving(_answer) as server:
        make_scores(_embedding(long, server.url))
        own = [texts for texts in _lists(server) if len(texts) > 1]
    shared = [texts for texts in own if len(texts) > SCAN["top"]]
    assert [len(texts) for texts in shared] == [len(set(shared[0]))]
    # A random text that is not found there would be embedded with those of each direction.
    of_poles = {text for texts in own if texts not in shared for text in texts}
    assert not of_poles & set(shared[0])
    assert len(of_poles) <= 4 * SCAN["top"]


def test_spend_of_the_judge_and_of_embeddings_stand_side_by_side(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, lambda direction, pole: [Label(direction, pole, "a-model", f"on {direction}")])
    with serving(_answer) as server:
        make_scores(_embedding(run, server.url, judge="a-judge"))
        counts = Counter(body["model"] for body in server.requests)
    with RunStore(run.database_path) as store:
        spend = {item.model: item for item in store.spend()}
    assert {name: item.requests for name, item in spend.items()} == counts
    assert counts["embedder"] > 8
    assert counts["a-judge"] > 16
    assert {item.stage for item in spend.values()} == {"scores"}
    assert spend["embedder"].completion_tokens == 0


def test_the_budget_is_one_for_the_judge_and_for_embeddings(run: Run) -> None:
    put_labels(run, lambda direction, pole: [Label(direction, pole, "a-model", f"on {direction}")])
    table = '[models.embedder]\ninput = 1000\noutput = 0\n[models."a-judge"]\ninput = 0\noutput = 0'
    Path("prices.toml").write_text(table, encoding="utf-8")
    with serving(_answer) as server:
        small = _embedding(run, server.url, judge="a-judge", budget=3.0)
        summary = make_scores(small)
        assert summary["not_asked"] == summary["unparsed_texts"] > 0
        assert {reason for s in _by(run, "embedding") for reason in s.faults} == {"budget"}
        assert all(score.f1 is not None for score in _by(run, "detection"))
        with RunStore(run.database_path) as store:
            assert sum(item.cost or 0.0 for item in store.spend()) <= 3.0
        assert make_scores(_embedding(run, server.url, judge="a-judge", budget=1e6)) == {
            "scored": 8,
            "unparsed_texts": 0,
        }


def test_a_judge_that_used_up_the_budget_leaves_none_of_it_for_embeddings(run: Run) -> None:
    put_labels(run, alpha)
    put_labels(run, lambda direction, pole: [Label(direction, pole, "a-model", f"on {direction}")])
    # 20 tokens of each reply of the judge cost 0.02; 0.6 is set aside for the longest.
    prices = "[models.embedder]\ninput = 250\noutput = 0\n"
    prices += '[models."a-judge"]\ninput = 0\noutput = 1000\n'
    Path("prices.toml").write_text(prices, encoding="utf-8")

    def metered(number: int, body: Body) -> Response:
        if "input" not in body:
            return _vectors(body)
        tokens = len(json.dumps(body["input"]))
        return Response(
            json.dumps(json.loads(_vectors(body).body) | {"usage": {"prompt_tokens": tokens}})
        )

    costs = []
    with serving(metered) as server:
        for budget in (1.2, 1e6):
            make_scores(_embedding(run, server.url, judge="a-judge", budget=budget, concurrency=1))
            with RunStore(run.database_path) as store:
                costs.append({item.model: item.cost or 0.0 for item in store.spend()})
    limited, unlimited = costs
    assert limited["a-judge"] > 0
    assert sum(limited.values()) <= 1.2
    # Either alone would have been within it.
    assert max(unlimited.values()) < 1.2 < sum(unlimited.values())


def test_what_failed_is_counted_by_its_reason_and_asked_again(run: Run) -> None:
    put_labels(run, alpha)
    failing = {"http": error(400, "no"), "malformed": Response('{"data": []}')}
    with serving(_answer) as server:
        near = _embedding(run, server.url)
        for reason, bad in failing.items():
            server.answer = partial(_but_for_thirty, bad)
            put_labels(run, partial(_named, reason))
            (run.folder / "replies.sqlite").unlink(missing_ok=True)
            summary = make_scores(near)
            found = _by(run, "embedding")
            assert {name for score in found for name in score.faults} == {reason}
            assert summary["unparsed_texts"] == sum(score.unparsed for score in found) > 0
            # Once, and not at every pole.
            assert sum(len(texts) == 30 for texts in _lists(server)) == 1
            server.requests.clear()
            server.answer = _answer
            # A reply that was no answer may be another on request only.
            again = make_scores(near)["unparsed_texts"]
            assert (again == 0) == (reason == "http")
            assert make_scores(near, retry_failed=True)["unparsed_texts"] == 0
            assert [len(texts) for texts in _lists(server)] == [30]
            server.requests.clear()


def test_vectors_of_another_width_under_the_same_name_are_asked_for_again_on_request(
    run: Run,
) -> None:
    put_labels(run, alpha)
    with serving(_answer) as server:
        near = _embedding(run, server.url)
        make_scores(near)
        before = sorted(map(tuple, _lists(server)))

        def wider(number: int, body: Body) -> Response:
            return _vectors(body, "aebtlph012345")

        server.answer = wider
        put_labels(run, partial(_named, "alpha2"))
        # The texts are kept from before; only the label is new.
        assert make_scores(near)["unparsed_texts"] > 0
        assert {reason for s in _by(run, "embedding") for reason in s.faults} == {"malformed"}
        server.requests.clear()
        assert make_scores(near)["unparsed_texts"] > 0
        assert server.requests == []
        assert make_scores(near, retry_failed=True) == {"scored": 8, "unparsed_texts": 0}
        # Each list once, however many poles it is shared by: which of them is old, nobody knows.
        texts = [each for each in before if each != ("alpha1, alpha2",)]
        assert sorted(map(tuple, _lists(server))) == sorted([*texts, ("alpha2",)])
        server.requests.clear()
        put_labels(run, partial(_named, "alpha3"))
        assert make_scores(near, retry_failed=True)["unparsed_texts"] == 0
        assert _lists(server) == [["alpha3"]]


def test_a_server_without_embeddings_ends_the_run_and_what_it_took_is_kept(run: Run) -> None:
    put_labels(run, lambda direction, pole: [Label(direction, pole, "a-model", f"on {direction}")])
    with (
        serving(
            lambda number, body: error(404, "no such model") if "input" in body else _vectors(body)
        ) as server,
        pytest.raises(LabelerError, match="404"),
    ):
        make_scores(_embedding(run, server.url, judge="a-judge", concurrency=1))
    with RunStore(run.database_path) as store:
        (spend,) = store.spend()
    assert spend.model == "a-judge"
    assert all_scores(run) == []


def test_another_model_or_address_for_embeddings_is_another_score(run: Run) -> None:
    put_labels(run, alpha)
    with serving(_answer) as server, serving(_answer) as other:
        make_scores(_embedding(run, server.url))
        make_scores(_embedding(run, server.url, embedding_model="another"))
        assert {score.judge for score in _by(run, "embedding")} == {"another"}
        make_scores(_embedding(run, other.url, embedding_model="another"))
        assert len(_lists(other)) == len(_lists(server)) / 2
        make_scores(run)
    assert _by(run, "embedding") == []


def test_candidates_are_chosen_by_detection_whatever_stands_first(run: Run) -> None:
    put_labels(run, candidates_of)
    with serving(_answer) as server:
        near = _embedding(run, server.url, judge="a-judge")
        first = near.settings.score.model_copy(update={"scorers": ("embedding", "fuzzing")})
        settings = near.settings.model_copy(update={"score": first})
        make_scores(dataclasses.replace(near, settings=settings))
    scores = all_scores(run)
    assert {score.scorer for score in scores if score.split == "select"} == {"fuzzing"}
    assert {score.scorer for score in scores if score.split == "test"} == {"embedding", "fuzzing"}


@pytest.mark.parametrize("scorers", [["embedding"], []])
def test_scorers_without_one_that_says_yes_are_refused(scorers: list[str]) -> None:
    table = {"name": "a", "model": {"tuned": "x"}, "score": {"scorers": scorers}}
    with pytest.raises(ConfigError, match=r"score.scorers: needs 'detection' or 'fuzzing'"):
        parse_settings(table)


def test_without_a_model_for_embeddings_nothing_is_asked(run: Run) -> None:
    put_labels(run, alpha)
    with serving(_answer) as server:
        near = _embedding(run, server.url, embedding_model="")
        for work in (make_scores, plan_scores, pipeline.preflight):
            with pytest.raises(ConfigError, match="'embedding' needs a model; name it"):
                work(near)
        dear = _embedding(run, server.url, budget=1.0)
        with pytest.raises(ConfigError, match=r"price of 'embedder' is not known; name it in pri"):
            make_scores(dear)
    assert server.requests == []


def test_a_plan_counts_what_is_then_asked_of_both_models(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    put_labels(run, alpha)
    put_labels(
        run, lambda direction, pole: [Label(direction, pole, "a-model", f"{direction}{pole}")]
    )
    table = '[models.embedder]\ninput = 1000\noutput = 0\n[models."a-judge"]\ninput = 0\noutput = 1'
    Path("prices.toml").write_text(table, encoding="utf-8")
    with serving(_answer) as server:
        near = _embedding(run, server.url, judge="a-judge", concurrency=1)
        plan = plan_scores(near)
        assert plan is not None
        assert server.requests == []
        make_scores(near)
        counts = Counter(body["model"] for body in server.requests)
        assert counts.total() == plan.requests == plan.to_ask
        embedded = sum(len(json.dumps(texts)) for texts in _lists(server))
        assert plan.cost == pytest.approx(
            1e-6 * 600 * counts["a-judge"] + embedded / 3 * 1e-3, rel=0.1
        )
        after = plan_scores(near)
        assert after is not None
        assert (after.requests, after.to_ask, after.cost) == (plan.requests, 0, 0.0)
        assert cli.main(["score", str(run.folder), "--plan"]) == 0
        out = capsys.readouterr().out
    assert f"score: {plan.requests} requests, {plan.requests} of them answered already" in out
