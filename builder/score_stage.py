"""How are the labels of a run scored? Labeler by labeler, from the database and back into it.

The database is only read while judges work, which may take hours; scores wait in a file beside it
and are written in one go. Scores of a labeler that nothing has changed for are left as they are.
What a language model answered is kept in ``replies.sqlite`` in the run folder, as for labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from builder.endpoint.access import Access
from builder.endpoint.as_ready import as_ready
from builder.endpoint.batch import BatchJob
from builder.endpoint.client import NOT_ASKED
from builder.endpoint.embeddings import Embedded
from builder.endpoint.estimate import Estimate, answered, estimate_questions
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import find_price, price_of_requests
from builder.endpoint.replies import REPLIES, Replies, key_of
from builder.errors import ConfigError, LabelerError
from builder.execute import disk_errors
from builder.labels.upkeep import refresh_labels
from builder.provenance import refresh_facts
from builder.records import Label
from builder.run_folder import Run, claimed, digest_of, record_stage, timed
from builder.score_rounds import Rounds, ask_in_batches, collect_rounds
from builder.score_works import Work, is_due, poles_of, works_of
from builder.scores.asking import (
    STAGE,
    Asking,
    asking,
    check_judges,
    embedder_settings,
    judge_settings,
)
from builder.scores.items import Pool
from builder.scores.model_judge import is_whole
from builder.scores.scoring import (
    Plan,
    PoleScores,
    deciding_questions,
    embedding_questions_of,
    score_pole,
    select_candidate,
    testing_questions,
)
from builder.scores.spool import Spool
from builder.store import RunStore


def make_scores(run: Run, *, retry_failed: bool = False, batch: bool = False) -> dict[str, int]:
    """How many poles have a score, and how many labels and texts could not be judged.

    Labels of a language model wait until there is a model to judge them. ``retry_failed``: replies
    that left texts without a verdict are asked for again, and embeddings of several widths;
    ``batch``: the language model is asked through the endpoint for batches, which may take a day,
    or two where there are candidates to choose from. What is on its way in one is collected first
    in any case. Labels in ``labels.toml`` are taken up. Raises ConfigError, LabelerError and
    StoreError.
    """
    _check(run, batch)
    faults: dict[str, Fault] = {}
    with claimed(run):
        refresh_facts(run)
        refresh_labels(run.database_path)
        with asking(run.settings, run.folder, offline=faults if batch else None) as asked:
            batches = asked.replies.batches() if asked else []
            if any(item.stage != STAGE for item in batches):
                raise LabelerError(
                    f"{run.folder}: labels are on their way in a batch; collect them first, with "
                    "the `weightatlas label` that asked for them"
                )
            chat = asked.chat if asked else None
            embedder = asked.embedder if asked else None
            # What is asked through batches is asked again there.
            again = partial(chat.ask, again=True) if chat and retry_failed and not batch else None
            anew = partial(embedder.embedded, again=True) if embedder and retry_failed else None
            with RunStore(run.database_path) as store:
                works, gone = works_of(store, run.settings, chat, embedder, again, anew)
                due = [work for work in works if _is_due(store, work, retry_failed, bool(batches))]
            with timed() as cost:
                _forget(run, gone)
                try:
                    if asked is not None and chat is not None and (batch or batches):
                        _ask_in_batches(run, due, asked, retry_failed, faults if batch else None)
                    for work in due:
                        _score_labeler(run, work, asked)
                except (LabelerError, KeyboardInterrupt):
                    # What was asked until then is paid for, and its replies are kept.
                    if asked is not None:
                        with RunStore(run.database_path, read_only=False) as store:
                            store.replace_spend(STAGE, asked.spend())
                    raise
        with RunStore(run.database_path) as store:
            summary = _summary(store, {work.labeler for work in works})
        if due or gone:
            wanted = digest_of([work.fingerprint for work in works])
            record_stage(run.folder, STAGE, wanted, cost, summary)
    return summary


def _ask_in_batches(
    run: Run,
    due: Sequence[Work],
    asked: Asking,
    retry_failed: bool,
    faults: dict[str, Fault] | None,
) -> None:
    """Has the language model's verdicts answered through batches; ``faults`` says why some are not.

    Without ``faults`` only what is on its way is collected.
    """
    judge = judge_settings(run.settings)
    assert judge is not None

    def again(question: Question, reply: Reply) -> bool:
        return retry_failed and not is_whole(question, reply)

    price = price_of_requests(judge, batch=True)
    job = BatchJob(STAGE, run.folder, price, judge.budget, again, asked.prices)
    with RunStore(run.database_path) as store:
        rounds = Rounds(store, [work for work in due if not work.by_words])
        if faults is None:
            collect_rounds(rounds, Access.of(judge), asked.replies, job)
        else:
            ask_in_batches(rounds, Access.of(judge), asked.replies, job, faults)
    asked.recount()


def plan_scores(run: Run, *, retry_failed: bool = False, batch: bool = False) -> Estimate | None:
    """What scoring the labels that are there would ask of endpoints; asks and writes nothing.

    Where not all is kept that decides between candidates, the one chosen so far stands for the one
    that will be, or the first where that is "no pattern". None where there are no labels yet that a
    model would judge.
    """
    _check(run, batch)
    settings, place = run.settings, run.folder / REPLIES
    judge, embedder = judge_settings(settings), embedder_settings(settings)
    if judge is None and embedder is None:
        return Estimate()
    with RunStore(run.database_path) as store, contextlib.ExitStack() as stack:
        replies = stack.enter_context(Replies(place)) if place.is_file() else None
        judged = _Known(replies, Access.of(judge), retry_failed) if judge else None
        near = _Nobody() if embedder else None
        works, _ = works_of(store, settings, judged, near)
        if not any(work.asks for work in works):
            return None
        batches = bool(replies and replies.batches())
        due = [work for work in works if _is_due(store, work, retry_failed, batches)]
        rest = [work for work in works if work not in due]
        planned = _Planned(store, judged)
        total = Estimate()
        # What labelers share is asked where it is due for one of them.
        if judge is not None and judged is not None:
            price = price_of_requests(judge, batch=batch)
            total += estimate_questions(planned.asked(due), judged.kept, price, judged.in_batch)
            total += answered(planned.asked(rest))
        if embedder is not None:
            known = _Known(replies, Access.of(embedder))
            price = find_price(embedder)
            total += estimate_questions(planned.embedded(due), known.kept, price)
            total += answered(planned.embedded(rest))
        return total


def _is_due(store: RunStore, work: Work, retry_failed: bool, batches: bool) -> bool:
    # What is on its way may be for labels whose scores are not due otherwise.
    return (batches and not work.by_words) or is_due(store, work, retry_failed)


class _Nobody:
    """Who is asked for embeddings while it is only planned."""

    name = ""

    def embedded(self, texts: Sequence[str]) -> Embedded | Fault:
        raise AssertionError("a plan asks nothing")


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of questions to an endpoint already; asks nothing, as an Asker too."""

    replies: Replies | None
    access: Access
    retry_failed: bool = False

    def ask(self, question: Question) -> Reply | Fault:
        """The reply that would not be asked for again, or that there is none."""
        return self.kept(question) or NOT_ASKED

    def kept(self, question: Question) -> Reply | None:
        """The reply that would not be asked for again."""
        reply = self.replies.find(key_of(question, self.access)) if self.replies else None
        is_failed = self.retry_failed and reply is not None and not is_whole(question, reply)
        return None if is_failed else reply

    def in_batch(self, question: Question) -> bool:
        """Whether it is on its way in a batch."""
        return self.replies is not None and self.replies.is_in_batch(key_of(question, self.access))


@dataclass(frozen=True, slots=True)
class _Planned:
    """What would be asked about the labels of some works, each question given out once."""

    store: RunStore
    judged: _Known | None
    _seen: set[str] = field(default_factory=set)

    def asked(self, works: Sequence[Work]) -> Iterator[Question]:
        """What is asked of the language model."""
        for work in works:
            if not work.by_words:
                for candidates, pool in poles_of(self.store, work):
                    yield from self._new(deciding_questions(candidates, pool, work.plan))
                    for label in self._tested(candidates, pool, work.plan):
                        yield from self._new(testing_questions(label, pool, work.plan))

    def embedded(self, works: Sequence[Work]) -> Iterator[Question]:
        """What is asked of the model for embeddings."""
        for work in works:
            for candidates, pool in poles_of(self.store, work):
                for label in self._tested(candidates, pool, work.plan):
                    yield from self._new(embedding_questions_of(label, pool, work.plan))

    def _new(self, questions: Iterable[Question]) -> Iterator[Question]:
        for question in questions:
            if question.hash not in self._seen:
                self._seen.add(question.hash)
                yield question

    def _tested(self, candidates: Sequence[Label], pool: Pool, plan: Plan) -> list[Label]:
        """The label that is tested, or stands for it; none where "no pattern" is chosen."""
        deciding = deciding_questions(candidates, pool, plan)
        if self.judged is None or all(self.judged.kept(each) for each in deciding):
            labels: Iterable[Label] = select_candidate(candidates, pool, plan).labels
            return [label for label in labels if label.is_chosen and label.text is not None]
        named = [label for label in candidates if label.text is not None]
        return sorted(named, key=lambda label: not label.is_chosen)[:1]


def _check(run: Run, batch: bool) -> None:
    if not run.database_path.is_file():
        raise ConfigError(f"{run.folder}: nothing is scanned yet; run `weightatlas scan` first")
    check_judges(run.settings)
    if batch and judge_settings(run.settings) is None:
        raise ConfigError("--batch: name the language model that judges with --model")


def _score_labeler(run: Run, work: Work, asked: Asking | None) -> None:
    """Puts the scores of one labeler into the database, and the candidates that were chosen."""
    workers = run.settings.label.concurrency if work.asks else 0
    stop = asked.stop if asked is not None else _nothing
    with disk_errors(run.folder), Spool(run.folder) as spool:
        labels: list[Label] = []
        with RunStore(run.database_path) as store, tqdm(**_bar(work)) as bar:
            scored = partial(_scored, plan=work.plan)
            for pole in as_ready(scored, poles_of(store, work), workers, stop):
                spool.add(pole.scores)
                labels += pole.labels
                bar.update()
                if work.asks and asked is not None and asked.is_priced:
                    bar.set_postfix_str(f"${asked.budget.spent:,.2f}", refresh=False)
            failures = [item for item in store.label_failures() if item.labeler == work.labeler]
            made_from = store.label_fingerprint(work.labeler) or ""
        with RunStore(run.database_path, read_only=False) as store:
            if work.plan.parts > 1:
                store.replace_labels([*labels, *failures], fingerprint=made_from)
            store.replace_scores(work.labeler, spool, fingerprint=work.fingerprint)
            if asked is not None:
                store.replace_spend(STAGE, asked.spend())


def _scored(item: tuple[tuple[Label, ...], Pool], plan: Plan) -> PoleScores:
    return score_pole(*item, plan)


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
    not_asked = sum(score.faults.get("budget", 0) for score in scores)
    return {
        "scored": len({(item.direction, item.pole) for item in scores if item.auprc is not None}),
        "unparsed_texts": sum(score.unparsed for score in scores),
        **({"unjudged_labels": unjudged} if unjudged else {}),
        **({"not_asked": not_asked} if not_asked else {}),
    }


def _bar(work: Work) -> dict[str, Any]:
    poles = len({(label.direction, label.pole) for label in work.labels})
    about = f"scores ({work.labeler})"
    return {"desc": about, "total": poles, "unit": " poles", "delay": 1, "disable": None}


def _nothing() -> None:
    pass
