"""How are the labels of a run scored? Labeler by labeler, from the database and back into it.

The database is only read while judges work, which may take hours; scores wait in a file beside it
and are written in one go. Scores of a labeler that nothing has changed for are left as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tqdm import tqdm

from builder import __version__
from builder.config import ScoreSettings, Settings
from builder.endpoint.messages import Asker
from builder.errors import ConfigError
from builder.execute import disk_errors
from builder.labels.evidence import Background
from builder.labels.keywords import LABELER as KEYWORDS
from builder.records import ANY_ROLE, HAND, POLES, STRATA, Label, Pole, Stratum
from builder.run_folder import Run, claimed, digest_of, record_stage, timed
from builder.scores.items import Pool, Sample, make_pool
from builder.scores.judge import Judge
from builder.scores.model_judge import ModelJudge, prompt_version
from builder.scores.scoring import SCORES_VERSION, Plan, PoleScores, score_pole
from builder.scores.spool import Spool
from builder.scores.words import JUDGE as WORDS
from builder.scores.words import WORDS_VERSION, WordJudge
from builder.store import RunStore

STAGE = "scores"
#: Reasons for which another attempt may find a verdict.
MOMENTARY = frozenset({"timeout", "http", "budget"})
_ALL = 2**31

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Work:
    """The labels of one labeler, by direction and pole, and how they are judged."""

    labeler: str
    labels: tuple[Label, ...]
    plan: Plan
    by_words: bool
    fingerprint: str


def judge_model(settings: Settings) -> str:
    """The language model that judges under these settings; empty for none."""
    return settings.score.model or settings.label.model


def make_scores(run: Run, asker: Asker | None = None) -> dict[str, int]:
    """How many poles have a score, and how many labels and texts could not be judged.

    ``asker`` stands for the model of :func:`judge_model`. Labels of a language model wait until
    there is one; those of keywords need none. Raises ConfigError, LabelerError and StoreError.
    """
    if not run.database_path.is_file():
        raise ConfigError(f"{run.folder}: nothing is scanned yet; run `weightatlas scan` first")
    with claimed(run):
        with RunStore(run.database_path) as store:
            labels = store.labels(candidates=True)
            background = Background.from_windows(store.reservoir())
            scanned = str(store.meta()["scan_fingerprint"])
            works = [
                work
                for labeler in sorted({label.labeler for label in labels})
                if (work := _work(labeler, labels, run.settings, background, asker, scanned))
            ]
            gone = {score.labeler for score in store.scores()} - {item.labeler for item in labels}
            due = [work for work in works if _is_due(store, work)]
        with timed() as cost:
            _forget(run, gone)
            for work in due:
                _score_labeler(run, work, 0 if work.by_words else run.settings.label.concurrency)
        with RunStore(run.database_path) as store:
            summary = _summary(store, {work.labeler for work in works})
        if due or gone:
            wanted = digest_of([work.fingerprint for work in works])
            record_stage(run.folder, STAGE, wanted, cost, summary)
    return summary


def _work(
    labeler: str,
    labels: Sequence[Label],
    settings: Settings,
    background: Background,
    asker: Asker | None,
    scanned: str,
) -> _Work | None:
    """How a labeler's labels are judged; None while there is nobody to judge them."""
    own = tuple(label for label in labels if label.labeler == labeler)
    score, model = settings.score, judge_model(settings)
    by_words = labeler == KEYWORDS or (labeler == HAND and asker is None)
    if not by_words and asker is None:
        return None
    judge: Judge
    if by_words:
        judge = WordJudge(background, as_phrases=labeler == KEYWORDS)
    else:
        assert asker is not None
        judge = ModelJudge(
            model, asker, batch=score.batch, max_completion_tokens=score.max_completion_tokens
        )
    limits = _limits(score)
    plan = Plan(
        judges=dict.fromkeys(score.scorers, judge),
        most={
            scorer: dict.fromkeys(STRATA, _ALL) if by_words and scorer == "detection" else limits
            for scorer in score.scorers
        },
        parts=2 if any(label.candidate for label in own) else 1,
    )
    facts = [scanned, __version__, SCORES_VERSION, _judge_facts(settings, by_words)]
    said = [
        [item.direction, item.pole, item.candidate, item.text, item.confidence, item.example_docs]
        for item in own
    ]
    return _Work(labeler, own, plan, by_words, digest_of(facts, limits, score.scorers, said))


def _limits(settings: ScoreSettings) -> dict[Stratum, int]:
    return {
        "pole": settings.positives,
        "other": settings.other,
        "middle": settings.random // 2,
        "random": settings.random - settings.random // 2,
    }


def _judge_facts(settings: Settings, by_words: bool) -> list[Any]:
    """What a judge's verdicts depend on."""
    if by_words:
        return [WORDS, WORDS_VERSION]
    score = settings.score
    return [
        judge_model(settings),
        score.base_url or settings.label.base_url,
        [prompt_version(scorer) for scorer in score.scorers],
        score.batch,
        score.max_completion_tokens,
        score.temperature,
    ]


def _is_due(store: RunStore, work: _Work) -> bool:
    """Whether scores are missing, out of date, or lack verdicts that another attempt may find."""
    if store.score_fingerprint(work.labeler) != work.fingerprint:
        return True
    scores = store.scores(candidates=True)
    return any(
        score.labeler == work.labeler and MOMENTARY & score.faults.keys() for score in scores
    )


def _score_labeler(run: Run, work: _Work, workers: int) -> None:
    """Puts the scores of one labeler into the database, and the candidates that were chosen."""
    with disk_errors(run.folder), Spool(run.folder) as spool:
        labels: list[Label] = []
        with RunStore(run.database_path) as store:
            scored = in_order(partial(_scored, plan=work.plan), _poles(store, work), workers)
            for pole in tqdm(scored, **_bar(work)):
                spool.add(pole.scores)
                labels += pole.labels
            failures = [item for item in store.label_failures() if item.labeler == work.labeler]
            made_from = store.label_fingerprint(work.labeler) or ""
        with RunStore(run.database_path, read_only=False) as store:
            if work.plan.parts > 1:
                store.replace_labels([*labels, *failures], fingerprint=made_from)
            store.replace_scores(work.labeler, spool, fingerprint=work.fingerprint)


def _scored(item: tuple[tuple[Label, ...], Pool], plan: Plan) -> PoleScores:
    return score_pole(*item, plan)


def _poles(store: RunStore, work: _Work) -> Iterator[tuple[tuple[Label, ...], Pool]]:
    """The candidates of each pole, with the texts to judge them on."""
    of_poles: dict[tuple[str, Pole], list[Label]] = {}
    for label in work.labels:
        of_poles.setdefault((label.direction, label.pole), []).append(label)
    directions = dict.fromkeys(direction for direction, _ in of_poles)
    for pool in pole_pools(store, directions):
        if candidates := of_poles.get((pool.direction, pool.pole)):
            yield tuple(candidates), pool


def pole_pools(store: RunStore, directions: Iterable[str]) -> Iterator[Pool]:
    """The texts that labels of both poles of these directions may be judged on."""
    hashes = {row.id: row.content_hash for row in store.directions()}
    sample = Sample(
        windows=tuple(store.held_out()),
        reservoir_docs=tuple(window.doc_id for window in store.reservoir()),
        documents=sum(count.n for count in store.counts() if count.what == "distinct"),
    )
    for direction in directions:
        examples = store.examples(direction, role=ANY_ROLE)
        for pole in POLES:
            peaks = store.sample_peaks(direction, pole)
            yield make_pool(direction, pole, hashes[direction], examples, sample, peaks)


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """The results of ``work`` in order, reading a little ahead; without workers, none at all."""
    if not workers:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # After an error, or when the caller stops, what has not begun never begins.
        pool.shutdown(wait=True, cancel_futures=True)


def _forget(run: Run, labelers: Iterable[str]) -> None:
    """Removes the scores of labelers that have no labels any more."""
    gone = sorted(labelers)
    if gone:
        with RunStore(run.database_path, read_only=False) as store:
            for labeler in gone:
                store.replace_scores(labeler, [])


def _summary(store: RunStore, scored: set[str]) -> dict[str, int]:
    scores = store.scores()
    labels = [label for label in store.labels() if label.text is not None]
    unjudged = sum(label.labeler not in scored for label in labels)
    return {
        "scored": len({(item.direction, item.pole) for item in scores if item.auprc is not None}),
        "unparsed_texts": sum(score.unparsed for score in scores),
        **({"unjudged_labels": unjudged} if unjudged else {}),
    }


def _bar(work: _Work) -> dict[str, Any]:
    poles = len({(label.direction, label.pole) for label in work.labels})
    about = f"scores ({work.labeler})"
    return {"desc": about, "total": poles, "unit": " poles", "delay": 1, "disable": None}
