"""Scores stay as they are when documents are there twice, in another order, or nearly twice."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.config import ScoreSettings
from builder.records import Label, Pole, Score, Scorer
from builder.score_stage import make_scores
from builder.store import RunStore
from tests.scanned import run_of, scan, write_texts
from tests.scores.running import all_scores, put_labels

#: Windows shorter than most documents, so that there is something to draw.
SCAN = {"top": 10, "reservoir": 60, "held_out": 120, "window": 6, "shard_documents": 150}
WORDS = [f"alpha{n}" for n in range(6)] + [f"beta{n}" for n in range(12)]

Key = tuple[str, Pole, Scorer]


def _texts() -> list[str]:
    rng = random.Random(3)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(300)]


def _label(direction: str, pole: Pole) -> list[Label]:
    return [Label(direction, pole, "keywords", "alpha1, alpha2, beta3")]


def _scores(folder: Path, texts: list[str]) -> dict[Key, Score]:
    """Without the numbers and the places of the documents that were judged."""
    folder.mkdir()
    run = run_of(folder / "run", write_texts(folder / "texts.jsonl", texts), scan=SCAN)
    settings = run.settings.model_copy(update={"score": ScoreSettings(random=20, positives=4)})
    run = dataclasses.replace(run, settings=settings)
    scan(run)
    put_labels(run, _label)
    make_scores(run)
    with RunStore(run.database_path) as store:
        assert sum(count.n for count in store.counts() if count.what == "distinct") == 300
    return {
        (score.direction, score.pole, score.scorer): dataclasses.replace(
            score, judged=tuple(item._replace(doc_id=0) for item in score.judged)
        )
        for score in all_scores(run)
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Score]:
    found = _scores(tmp_path_factory.mktemp("once") / "once", _texts())
    assert len({score.f1 for score in found.values()}) > 4
    return found


def _appended(texts: list[str]) -> list[str]:
    return texts + texts[:100]


def _prepended(texts: list[str]) -> list[str]:
    return [texts[250], texts[7], *texts]


def _interleaved(texts: list[str]) -> list[str]:
    return [copy for text in texts for copy in (text, text)]


def _shuffled(texts: list[str]) -> list[str]:
    return random.Random(1).sample(texts, len(texts))


@pytest.mark.parametrize("change", [_appended, _prepended, _interleaved, _shuffled])
def test_scores_are_the_same_whatever_is_copied_and_in_whatever_order(
    before: dict[Key, Score], change: Callable[[list[str]], list[str]], tmp_path: Path
) -> None:
    assert _scores(tmp_path / "run", change(_texts())) == before


def _longer(text: str) -> str:
    return f"{text} end"


def _another_word(text: str) -> str:
    """With another word in the middle, after which no activation is what it was."""
    words = text.split(" ")
    words[len(words) // 2] = "indeed"
    return " ".join(words)


def _near(change: Callable[[str], str]) -> list[str]:
    """Near-duplicates of one in fifteen documents."""
    return [change(text) for text in _texts() if text.count(" ") > 30][::8]


def _at_random(score: Score) -> list[tuple[int, float | None]]:
    return [
        (item.place, item.verdict) for item in score.judged if item.stratum in ("middle", "random")
    ]


def _moved(before: dict[Key, Score], after: dict[Key, Score]) -> list[float]:
    """By how much each F1 differs, ascending."""
    return sorted(abs((after[key].f1 or 0) - (one.f1 or 0)) for key, one in before.items())


def test_near_duplicates_that_come_later_and_reach_no_further_move_nothing(
    before: dict[Key, Score], tmp_path: Path
) -> None:
    assert _scores(tmp_path / "run", _texts() + _near(_longer)) == before


def test_near_duplicates_that_come_later_move_only_where_they_reach_further(
    before: dict[Key, Score], tmp_path: Path
) -> None:
    """They take a document's place at a pole then, and one other text may change its side."""
    after = _scores(tmp_path / "run", _texts() + _near(_another_word))
    for key, one in before.items():
        if one.scorer == "detection":
            assert _at_random(after[key]) == _at_random(one)
    assert after != before
    moved = _moved(before, after)
    assert moved[len(moved) // 2] < 0.005
    assert moved[-1] < 0.02


@pytest.mark.parametrize("change", [_longer, _another_word])
def test_near_duplicates_that_come_first_move_few_scores_and_those_little(
    before: dict[Key, Score], change: Callable[[str], str], tmp_path: Path
) -> None:
    """They stand for their documents in the random sample, and are other texts there."""
    moved = _moved(before, _scores(tmp_path / "run", _near(change) + _texts()))
    assert moved[len(moved) // 2] < 0.03
    assert moved[-1] < 0.1
