"""How are the poles of a scanned run labelled? Evidence from the database, labels back into it.

Labels that other labelers gave stay beside them. What was answered is kept in ``replies.sqlite`` in
the run folder, so a killed run goes on where it was, and the same run again asks nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from builder import __version__
from builder.config import LabelSettings
from builder.endpoint.access import Access
from builder.endpoint.batch import BatchJob, answer_batch, collect_batches
from builder.endpoint.budget import Budget
from builder.endpoint.client import ChatClient
from builder.endpoint.embeddings import (
    EmbeddingClient,
    embedding_questions,
    embedding_settings,
)
from builder.endpoint.estimate import Estimate, answered, estimate_questions
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import check_budget, find_price, price_of_requests
from builder.endpoint.replies import REPLIES, Replies, key_of
from builder.errors import ConfigError, LabelerError
from builder.labels.answers import read_reply
from builder.labels.evidence import Background, Evidence
from builder.labels.explain import (
    LASTING_REASONS,
    MOMENTARY_REASONS,
    Result,
    check_labeler,
    keyword_results,
    label_fingerprint,
    label_poles,
    labeler_name,
    questions,
)
from builder.labels.similar import compared_texts
from builder.labels.split import split_examples, with_near_duplicates
from builder.labels.upkeep import refresh_labels
from builder.provenance import refresh_facts
from builder.records import ANY_ROLE, POLES, Example, Label, LabelFailure
from builder.run_folder import Run, claimed, digest_of, record_stage, timed
from builder.scores.asking import known_prices
from builder.store import AT_ONCE, DirectionRow, RunStore, SourceShare

STAGE = "labels"


def make_labels(run: Run, *, retry_failed: bool = False, batch: bool = False) -> dict[str, int]:
    """How many poles have a label, show no pattern, or failed, and how many candidates were not
    asked for lack of budget; labels stand in the database.

    ``retry_failed``: kept replies that became no label are asked for again; ``batch``: what is not
    kept is asked through the endpoint for batches, which may take a day. What is on its way in one
    is collected first in any case. Raises ConfigError, LabelerError and StoreError; where the work
    ends half-way, by a LabelerError or the user, what was had by then stands in the database.
    """
    settings = _checked(run)
    if settings.labeler == "keywords" and (batch or retry_failed):
        raise ConfigError("--batch and --retry-failed: name the language model with --model")
    with claimed(run):
        summary = _make(run, settings, retry_failed, batch)
        _find_similar(run)
    return summary


def _make(run: Run, settings: LabelSettings, retry_failed: bool, batch: bool) -> dict[str, int]:
    """The summary of labels that are brought up to date, or are already."""
    refresh_facts(run)
    refresh_labels(run.database_path)
    with RunStore(run.database_path) as store:
        wanted = _fingerprint(store, settings)
        known = _known_results(store, settings)
        with timed() as cost, _maybe_replies(run, settings) as replies:
            if _is_made(store, settings, known, replies, retry_failed):
                return _summary(known)
            if any(item.stage != STAGE for item in (replies.batches() if replies else [])):
                raise LabelerError(
                    f"{run.folder}: verdicts on its labels are on their way in a batch; collect "
                    "them first, with the `weightatlas score` that asked for them"
                )
            stopped: BaseException | None = None
            try:
                results = _results(store, run, settings, replies, retry_failed, batch)
            except (LabelerError, KeyboardInterrupt) as error:
                if replies is None or not replies.arrived:
                    raise
                stopped = error
                results = _kept_results(store, settings, replies)
            spend = replies.spend(STAGE) if replies else []
    with RunStore(run.database_path, read_only=False) as store:
        store.replace_labels(results, fingerprint=wanted)
        if replies:
            store.replace_spend(STAGE, spend)
    refresh_labels(run.database_path)
    summary = _summary(results)
    record_stage(run.folder, STAGE, wanted, cost, summary)
    if stopped is not None:
        raise stopped
    return summary


def _find_similar(run: Run) -> None:
    """Finds similar labels by embeddings where the settings name a model for them."""
    settings = embedding_settings(run.settings.label)
    if settings is None:
        return
    price = find_price(settings)
    with Replies(run.folder / REPLIES) as replies:
        budget = Budget(settings.budget, replies.spent(price, known_prices(run.settings)))
        with EmbeddingClient(
            Access.of(settings), replies, stage=STAGE, price=price, budget=budget
        ) as client:
            try:
                refresh_labels(run.database_path, client)
            finally:
                if replies.arrived:
                    with RunStore(run.database_path, read_only=False) as store:
                        store.replace_spend(STAGE, client.spend())


def plan_labels(run: Run, *, retry_failed: bool = False, batch: bool = False) -> Estimate:
    """What labelling would ask of the endpoint; asks and writes nothing.

    Nothing at all for ``keywords``.
    """
    settings = _checked(run)
    if settings.labeler == "keywords":
        return Estimate()
    access, price = Access.of(settings), price_of_requests(settings, batch=batch)
    with RunStore(run.database_path) as store, contextlib.ExitStack() as stack:
        place = run.folder / REPLIES
        replies = stack.enter_context(Replies(place)) if place.is_file() else None

        def kept(question: Question) -> Reply | None:
            reply = replies.find(key_of(question, access)) if replies else None
            is_failed = reply is not None and isinstance(read_reply(reply), Fault)
            return None if is_failed and retry_failed else reply

        background = Background.from_windows(store.reservoir())
        asked = questions(evidences(store), background, settings)
        if _is_made(store, settings, _known_results(store, settings), replies, retry_failed):
            return answered(asked)
        return estimate_questions(
            asked,
            kept,
            price,
            lambda question: replies is not None and replies.is_in_batch(key_of(question, access)),
        )


def plan_similar(run: Run) -> Estimate | None:
    """What finding similar labels would ask of the model for embeddings; asks and writes nothing.

    None where the labels that these settings ask for are not there yet.
    """
    settings = _checked(run)
    embedding = embedding_settings(settings)
    if embedding is None:
        return Estimate()
    access, place = Access.of(embedding), run.folder / REPLIES
    with RunStore(run.database_path) as store, contextlib.ExitStack() as stack:
        if store.label_fingerprint(labeler_name(settings)) != _fingerprint(store, settings):
            return None
        replies = stack.enter_context(Replies(place)) if place.is_file() else None

        def kept(question: Question) -> Reply | None:
            return replies.find(key_of(question, access)) if replies else None

        asked = embedding_questions(compared_texts(store.labels()))
        return estimate_questions(asked, kept, find_price(embedding))


def evidences(store: RunStore) -> Iterator[Evidence]:
    """What labelers may know of each pole, in the order of directions and poles."""
    alike = store.near_duplicates()
    held_out = with_near_duplicates((window.doc_id for window in store.held_out()), alike)
    rows = store.directions()
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        ids = [row.id for row in some]
        examples = store.examples_of(ids, role=ANY_ROLE)
        quantiles, sources = store.quantile_examples_of(ids), store.sources_of(ids)
        for row in some:
            found = (examples[row.id], quantiles[row.id], sources[row.id])
            yield from _of_direction(row, held_out, alike, *found)


def _of_direction(
    row: DirectionRow,
    held_out: frozenset[int],
    alike: Mapping[int, frozenset[int]],
    every: Sequence[Example],
    quantiles: Sequence[Example],
    shares: Sequence[SourceShare],
) -> Iterator[Evidence]:
    # A label is scored on these, so whoever gives it must not have seen them.
    examples = [example for example in every if example.window.doc_id not in held_out]
    halves = {
        pole: split_examples([item for item in examples if item.pole == pole]) for pole in POLES
    }
    # A document or a text may reach both poles, and may be in the reservoir too.
    kept = [item.window for _, half in halves.values() for item in half]
    texts = {window.text for window in kept}
    withheld = with_near_duplicates((window.doc_id for window in kept), alike)

    def shown(items: Iterable[Example]) -> tuple[Example, ...]:
        return tuple(
            item
            for item in items
            if item.window.doc_id not in withheld and item.window.text not in texts
        )

    middle = shown(quantiles)
    explained = {pole: shown(half) for pole, (half, _) in halves.items()}
    sources = [item for item in shares if item.tail and item.all_documents]
    for pole in POLES:
        lens = row.promoted if pole == "max" else row.suppressed
        yield Evidence(
            direction=row.id,
            pole=pole,
            examples=explained[pole],
            contrast=explained["min" if pole == "max" else "max"],
            promoted=tuple(token for token, _ in lens),
            middle=tuple(item for item in middle if item.pole == pole),
            sources=tuple(
                (item.source, item.n / item.tail, item.documents / item.all_documents)
                for item in sources
                if item.pole == pole
            ),
            withheld=withheld,
        )


def _results(
    store: RunStore,
    run: Run,
    settings: LabelSettings,
    replies: Replies | None,
    retry_failed: bool,
    batch: bool,
) -> list[Result]:
    background = Background.from_windows(store.reservoir())
    poles = 2 * len(store.directions())
    if replies is None:
        found = keyword_results(evidences(store), background)
        return [item for results in tqdm(found, **_bar(poles)) for item in results]
    access, price = Access.of(settings), price_of_requests(settings, batch=batch)
    faults = None
    if batch or replies.batches():
        faults = _ask_in_batch(store, run, settings, replies, background, retry_failed, batch)
    budget = Budget(settings.budget, replies.spent(price, known_prices(run.settings)))
    with ChatClient(
        access, replies, stage=STAGE, price=price, budget=budget, offline=faults
    ) as client:
        again = retry_failed and not batch
        found = label_poles(evidences(store), background, settings, client, again=again)
        results: list[Result] = []
        with tqdm(**_bar(poles)) as bar:
            for item in found:
                results.extend(item)
                bar.update()
                if price:
                    bar.set_postfix_str(f"${budget.spent:,.2f}", refresh=False)
        return results


def _kept_results(store: RunStore, settings: LabelSettings, replies: Replies) -> list[Result]:
    """What the kept replies say of each pole; failures that ask for another run for the others."""
    background = Background.from_windows(store.reservoir())
    with ChatClient(Access.of(settings), replies, stage=STAGE, offline={}) as client:
        found = label_poles(evidences(store), background, settings, client)
        return [item for results in found for item in results]


def _ask_in_batch(
    store: RunStore,
    run: Run,
    settings: LabelSettings,
    replies: Replies,
    background: Background,
    retry_failed: bool,
    batch: bool,
) -> dict[str, Fault] | None:
    """Has all questions answered through the batch endpoint; why some are not, by their key.

    Without ``batch`` only what is on its way there is collected.
    """

    def again(question: Question, reply: Reply) -> bool:
        del question  # there is one answer in each reply
        return retry_failed and isinstance(read_reply(reply), Fault)

    def asked() -> Iterator[Question]:
        return questions(evidences(store), background, settings)

    price, prices = price_of_requests(settings, batch=True), known_prices(run.settings)
    job = BatchJob(STAGE, run.folder, price, settings.budget, again, prices)
    if batch:
        return answer_batch(asked, Access.of(settings), replies, job)
    collect_batches(asked, Access.of(settings), replies, job)
    return None


def _checked(run: Run) -> LabelSettings:
    """The settings; raises ConfigError for what is known to be wrong before anything is asked."""
    settings = run.settings.label
    check_labeler(settings)
    if not run.database_path.is_file():
        raise ConfigError(f"{run.folder}: nothing is scanned yet; run `weightatlas scan` first")
    check_budget(settings)
    if embedding := embedding_settings(settings):
        check_budget(embedding)
    return settings


@contextlib.contextmanager
def _maybe_replies(run: Run, settings: LabelSettings) -> Iterator[Replies | None]:
    """The kept replies of the run; None for the embedded labeler, which has none."""
    if settings.labeler == "keywords":
        yield None
        return
    with Replies(run.folder / REPLIES) as replies:
        yield replies


def _fingerprint(store: RunStore, settings: LabelSettings) -> str:
    return digest_of(store.meta()["scan_fingerprint"], __version__, label_fingerprint(settings))


def _known_results(store: RunStore, settings: LabelSettings) -> list[Result]:
    """What stands in the database by the labeler that the settings ask for."""
    labeler = labeler_name(settings)
    return [
        *(item for item in store.labels(candidates=True) if item.labeler == labeler),
        *(item for item in store.label_failures() if item.labeler == labeler),
    ]


def _is_made(
    store: RunStore,
    settings: LabelSettings,
    known: list[Result],
    replies: Replies | None,
    retry_failed: bool,
) -> bool:
    """Whether there is nothing to do: the same results again, and none on their way in a batch."""
    is_same = store.label_fingerprint(labeler_name(settings)) == _fingerprint(store, settings)
    is_awaited = replies is not None and bool(replies.batches(STAGE))
    return is_same and not is_awaited and not _open(known, retry_failed)


def _open(known: list[Result], retry_failed: bool) -> bool:
    """Whether another attempt may give other results than those that are known."""
    reasons = {item.reason for item in known if isinstance(item, LabelFailure)}
    return bool(reasons - LASTING_REASONS if retry_failed else reasons & MOMENTARY_REASONS)


def _summary(results: list[Result]) -> dict[str, int]:
    chosen = [item for item in results if isinstance(item, Label) and item.is_chosen]
    failures = [item for item in results if isinstance(item, LabelFailure)]
    labelled = {(item.direction, item.pole) for item in chosen}
    named = sum(item.text is not None for item in chosen)
    reasons = Counter(item.reason for item in failures)
    return {
        "labelled": named,
        "no_pattern": len(chosen) - named,
        "failed": len({(item.direction, item.pole) for item in failures} - labelled),
        **({"not_asked": reasons["budget"]} if reasons["budget"] else {}),
    }


def _bar(poles: int) -> dict[str, Any]:
    return {"desc": "labels", "total": poles, "unit": " poles", "delay": 1, "disable": None}
