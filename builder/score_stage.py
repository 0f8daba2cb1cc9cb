"""How are the labels of a run scored? Labeler by labeler, from the database and back into it.

The database is only read while judges work, which may take hours; scores wait in a file beside it
and are written in one go. Scores of a labeler that nothing has changed for are left as they are.
What a language model answered is kept in ``replies.sqlite`` in the run folder, as for labels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from builder import __version__
from builder.config import LabelSettings, ScoreSettings, Settings
from builder.endpoint.access import Access
from builder.endpoint.as_ready import as_ready
from builder.endpoint.budget import Budget
from builder.endpoint.client import ChatClient
from builder.endpoint.estimate import Estimate, estimate_questions
from builder.endpoint.messages import Asker, Fault, Question, Reply
from builder.endpoint.prices import check_budget, find_price
from builder.endpoint.replies import REPLIES, Replies, key_of
from builder.errors import ConfigError, LabelerError
from builder.execute import disk_errors
from builder.labels.evidence import Background
from builder.labels.keywords import LABELER as KEYWORDS
from builder.provenance import refresh_facts
from builder.records import HAND, STRATA, Label, Pole, Score, Stratum
from builder.run_folder import Run, claimed, digest_of, record_stage, timed
from builder.scores.items import Pool
from builder.scores.judge import Judge
from builder.scores.model_judge import ModelJudge, prompt_version
from builder.scores.pools import pole_pools
from builder.scores.scoring import SCORES_VERSION, Plan, PoleScores, questions_of, score_pole
from builder.scores.spool import Spool
from builder.scores.words import JUDGE as WORDS
from builder.scores.words import WORDS_VERSION, WordJudge
from builder.store import RunStore

STAGE = "scores"
Again = Callable[[Question], Reply | Fault]
#: Reasons for which another attempt may find a verdict; all others are in replies that are kept.
MOMENTARY = frozenset({"timeout", "http", "budget"})
_ALL = 2**31


@dataclass(frozen=True, slots=True)
class _Work:
    """The labels of one labeler, by direction and pole, and how they are judged."""

    labeler: str
    labels: tuple[Label, ...]
    plan: Plan
    by_words: bool
    fingerprint: str


def judge_settings(settings: Settings) -> LabelSettings | None:
    """The endpoint of the model that judges: as for labels, unless ``score`` names another.

    None where no model is named at all. A price that is set for the labeler is no other model's.
    """
    own, score = settings.label, settings.score
    model = score.model or own.model
    if not model:
        return None
    changed: dict[str, Any] = {
        "labeler": "openai",
        "model": model,
        "base_url": score.base_url or own.base_url,
        "temperature": score.temperature,
    }
    if model != own.model:
        changed |= {"price_input": None, "price_output": None}
    return own.model_copy(update=changed)


def make_scores(run: Run, *, retry_failed: bool = False) -> dict[str, int]:
    """How many poles have a score, and how many labels and texts could not be judged.

    Labels of a language model wait until there is a model to judge them. ``retry_failed``: replies
    that left texts without a verdict are asked for again. Raises ConfigError, LabelerError and
    StoreError.
    """
    _check(run)
    with claimed(run):
        refresh_facts(run)
        with _asking(run) as client:
            again = partial(client.ask, again=True) if client and retry_failed else None
            with RunStore(run.database_path) as store:
                works, gone = _works(store, run.settings, client, again)
                due = [work for work in works if _is_due(store, work, retry_failed)]
            with timed() as cost:
                _forget(run, gone)
                try:
                    for work in due:
                        _score_labeler(run, work, client)
                except (LabelerError, KeyboardInterrupt):
                    # What was asked until then is paid for, and its replies are kept.
                    if client is not None:
                        with RunStore(run.database_path, read_only=False) as store:
                            store.replace_spend(STAGE, client.spend())
                    raise
        with RunStore(run.database_path) as store:
            summary = _summary(store, {work.labeler for work in works})
        if due or gone:
            wanted = digest_of([work.fingerprint for work in works])
            record_stage(run.folder, STAGE, wanted, cost, summary)
    return summary


def plan_scores(run: Run) -> Estimate | None:
    """What scoring the labels that are there would ask of the endpoint; asks and writes nothing.

    Of several candidates the first stands for the one that will be chosen. None where there are no
    labels yet that a model would judge.
    """
    _check(run)
    judge = judge_settings(run.settings)
    if judge is None:
        return Estimate()
    access, price, place = Access.of(judge), find_price(judge), run.folder / REPLIES
    with RunStore(run.database_path) as store, contextlib.ExitStack() as stack:
        replies = stack.enter_context(Replies(place)) if place.is_file() else None

        def kept(question: Question) -> Reply | None:
            return replies.find(key_of(question, access)) if replies else None

        works, _ = _works(store, run.settings, _Nobody())
        if all(work.by_words for work in works):
            return None
        return estimate_questions(_questions(store, works), kept, price)


class _Nobody:
    """Who is asked while it is only planned."""

    def ask(self, question: Question) -> Reply | Fault:
        raise AssertionError("a plan asks nothing")


def _check(run: Run) -> None:
    if not run.database_path.is_file():
        raise ConfigError(f"{run.folder}: nothing is scanned yet; run `weightatlas scan` first")
    judge = judge_settings(run.settings)
    if judge is not None:
        check_budget(judge)


@contextlib.contextmanager
def _asking(run: Run) -> Iterator[ChatClient | None]:
    """The model that judges, with its kept replies; None where no model is named."""
    judge = judge_settings(run.settings)
    if judge is None:
        yield None
        return
    price = find_price(judge)
    with Replies(run.folder / REPLIES) as replies:
        if replies.batches():
            raise LabelerError(
                f"{run.folder}: labels are on their way in a batch; collect them first, with the "
                "`weightatlas label` that asked for them"
            )
        budget = Budget(judge.budget, replies.spent(price))
        access = Access.of(judge)
        with ChatClient(access, replies, stage=STAGE, price=price, budget=budget) as client:
            yield client


def _works(
    store: RunStore, settings: Settings, asker: Asker | None, again: Again | None = None
) -> tuple[list[_Work], list[str]]:
    """What there is to do for each labeler, and the labelers with scores but without labels."""
    labels = store.labels(candidates=True)
    background = Background.from_windows(store.reservoir())
    scanned = str(store.meta()["scan_fingerprint"])
    labelers = sorted({label.labeler for label in labels})
    works = []
    for labeler in labelers:
        own = tuple(label for label in labels if label.labeler == labeler)
        by_words = labeler == KEYWORDS or (labeler == HAND and asker is None)
        judge: Judge
        if by_words:
            judge = WordJudge(background, as_phrases=labeler == KEYWORDS)
        elif asker is not None:
            judge = _model_judge(settings, asker, again)
        else:
            continue
        works.append(_work(settings, own, judge, by_words, scanned))
    scored = {score.labeler for score in store.scores(candidates=True)}
    return works, sorted(scored - set(labelers))


def _model_judge(settings: Settings, asker: Asker, again: Again | None) -> ModelJudge:
    judge = judge_settings(settings)
    assert judge is not None
    return ModelJudge(
        Access.of(judge).public_model,
        asker,
        batch=settings.score.batch,
        max_completion_tokens=settings.score.max_completion_tokens,
        again=again,
    )


def _work(
    settings: Settings, labels: tuple[Label, ...], judge: Judge, by_words: bool, scanned: str
) -> _Work:
    score, limits = settings.score, _limits(settings.score)
    plan = Plan(
        judges=dict.fromkeys(score.scorers, judge),
        most={
            scorer: dict.fromkeys(STRATA, _ALL) if by_words and scorer == "detection" else limits
            for scorer in score.scorers
        },
        parts=2 if any(label.candidate for label in labels) else 1,
    )
    facts = [scanned, __version__, SCORES_VERSION, _judge_facts(settings, by_words)]
    said = [
        [item.direction, item.pole, item.candidate, item.text, item.confidence, item.example_docs]
        for item in labels
    ]
    fingerprint = digest_of(facts, limits, score.scorers, said)
    return _Work(labels[0].labeler, labels, plan, by_words, fingerprint)


def _limits(settings: ScoreSettings) -> dict[Stratum, int]:
    return {
        "pole": settings.positives,
        "other": settings.other,
        "middle": settings.random // 2,
        "random": settings.random - settings.random // 2,
    }


def _judge_facts(settings: Settings, by_words: bool) -> list[Any]:
    """What a judge's verdicts depend on."""
    judge = judge_settings(settings)
    if by_words or judge is None:
        return [WORDS, WORDS_VERSION]
    score = settings.score
    prompts = [prompt_version(scorer) for scorer in score.scorers]
    asked = [judge.model, Access.of(judge).where, judge.temperature]
    return [*asked, prompts, score.batch, score.max_completion_tokens]


def _is_due(store: RunStore, work: _Work, retry_failed: bool) -> bool:
    """Whether scores are missing, out of date, or lack verdicts that another attempt may find."""
    if store.score_fingerprint(work.labeler) != work.fingerprint:
        return True
    own = [score for score in store.scores(candidates=True) if score.labeler == work.labeler]
    # A labeler that was asked again chooses as if nothing had been scored.
    chosen = {_candidate(x) for x in work.labels if x.is_chosen and x.text is not None}
    if chosen != {_candidate(score) for score in own if score.split == "test"}:
        return True
    if retry_failed:
        return any(score.unparsed for score in own)
    return any(MOMENTARY & score.faults.keys() for score in own)


def _candidate(item: Label | Score) -> tuple[str, Pole, int]:
    return item.direction, item.pole, item.candidate


def _score_labeler(run: Run, work: _Work, client: ChatClient | None) -> None:
    """Puts the scores of one labeler into the database, and the candidates that were chosen."""
    asks = client is not None and not work.by_words
    workers = run.settings.label.concurrency if asks else 0
    stop = client.stop if client is not None else _nothing
    with disk_errors(run.folder), Spool(run.folder) as spool:
        labels: list[Label] = []
        with RunStore(run.database_path) as store, tqdm(**_bar(work)) as bar:
            scored = partial(_scored, plan=work.plan)
            for pole in as_ready(scored, _poles(store, work), workers, stop):
                spool.add(pole.scores)
                labels += pole.labels
                bar.update()
                if asks and client is not None and client.price:
                    bar.set_postfix_str(f"${client.budget.spent:,.2f}", refresh=False)
            failures = [item for item in store.label_failures() if item.labeler == work.labeler]
            made_from = store.label_fingerprint(work.labeler) or ""
        with RunStore(run.database_path, read_only=False) as store:
            if work.plan.parts > 1:
                store.replace_labels([*labels, *failures], fingerprint=made_from)
            store.replace_scores(work.labeler, spool, fingerprint=work.fingerprint)
            if client is not None:
                store.replace_spend(STAGE, client.spend())


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


def _questions(store: RunStore, works: Sequence[_Work]) -> Iterator[Question]:
    for work in works:
        if not work.by_words:
            for candidates, pool in _poles(store, work):
                yield from questions_of(candidates, pool, work.plan)


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


def _bar(work: _Work) -> dict[str, Any]:
    poles = len({(label.direction, label.pole) for label in work.labels})
    about = f"scores ({work.labeler})"
    return {"desc": about, "total": poles, "unit": " poles", "delay": 1, "disable": None}


def _nothing() -> None:
    pass
