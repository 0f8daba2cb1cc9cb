"""How are many questions asked at half the price, by an endpoint that answers within a day?

What is not kept yet is uploaded as one or more files of requests, each of which becomes a batch.
Which, is remembered with the kept replies before and after each step, so that a process that ends
while it waits, or is killed at any point, goes on with the same batches. A batch that is ready is
collected into the kept replies: every reply as if it had been asked for alone. A batch costs money,
so it is never made twice: one whose creation was not confirmed is looked for before another try.

Source: OpenAI, "Batch API" (files with purpose ``batch``, at most 50,000 lines and 200 MB).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from tqdm import tqdm

from builder.endpoint.access import NO_KEY, Access, as_detail, without_key
from builder.endpoint.batch_lines import download, read_line
from builder.endpoint.bodies import Form, most_usage, older_form, request_body, stand_in
from builder.endpoint.budget import Budget
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import Price
from builder.endpoint.replies import Batched, OpenBatch, Replies, key_of, parameters_of
from builder.errors import ConfigError, LabelerError

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

logger = logging.getLogger(__name__)

#: Of one file of requests; hosted endpoints take 50,000 lines and 200 MB.
MAX_REQUESTS, MAX_BYTES = 40_000, 150_000_000
#: Seconds between two looks at a batch.
PAUSE = 30.0
#: Attempts to make a batch, seconds between them, and batches that are looked through for it.
MAX_CREATIONS, CREATION_PAUSE, MAX_LISTED = 3, 5.0, 2000
ENDPOINT: Final = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What a batch is for: the stage it is counted for, at which price, within which limit.

    ``limit`` is in US dollars, for all that the kept replies count, None without one; ``again``
    tells which kept replies to questions are to be asked for again; ``folder`` takes files of
    requests and answers while they are worked on; ``prices`` are for what was asked of each model
    before its price was known.
    """

    stage: str
    folder: Path
    price: Price | None
    limit: float | None
    again: Callable[[Question, Reply], bool]
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Work:
    """All that the steps of a batch share."""

    client: openai.OpenAI
    key: str
    questions: Callable[[], Iterable[Question]]
    access: Access
    replies: Replies
    job: BatchJob

    def is_ours(self, item: OpenBatch) -> bool:
        """Whether a batch holds what is asked here."""
        wanted = (self.job.stage, self.access.model, self.access.where)
        return (item.stage, item.model, item.endpoint) == wanted


def answer_batch(
    questions: Callable[[], Iterable[Question]], access: Access, replies: Replies, job: BatchJob
) -> dict[str, Fault]:
    """Asks all questions whose reply is not kept, and waits for the replies, which are then kept.

    Gives, by key, why a question has no reply. Batches that are on their way are collected first
    (see :func:`wait_for_batches`). A server that refuses every line for its form is asked in an
    older one. Questions are gone through several times, so that they need not be in memory. Raises
    LabelerError when the endpoint has no batches, or one failed or expired (what it did answer is
    kept), and ConfigError for a batch of another model.
    """
    with _working(questions, access, replies, job) as work:
        faults = _collect_all(work)
        form = Form()
        while True:
            faults |= _submit(work, form, faults.keys())
            asked = sum(item.requests for item in replies.batches())
            found = _collect_all(work)
            older = _older_form(found, form) if len(found) == asked else None
            if older is None:
                return faults | found
            logger.info("%s: asking again in an older form", access.where)
            form = older


def wait_for_batches(
    questions: Callable[[], Iterable[Question]], access: Access, replies: Replies, job: BatchJob
) -> None:
    """Keeps the replies of all batches that are on their way, when they have ended.

    Replies to others than ``questions`` are kept too: settings may have changed meanwhile. What was
    not answered is as if it had not been asked. Raises as :func:`answer_batch` does.
    """
    if replies.batches():
        with _working(questions, access, replies, job) as work:
            _collect_all(work)


def collect_batches(
    questions: Callable[[], Iterable[Question]], access: Access, replies: Replies, job: BatchJob
) -> None:
    """Keeps the replies of the batches that have ended and hold what is asked here.

    Raises LabelerError, when all are looked at, where one has not ended: what is asked twice is
    paid for twice.
    """
    if not replies.batches():
        return
    waiting: list[tuple[str, int]] = []
    with _working(questions, access, replies, job) as work:
        for item in filter(work.is_ours, replies.batches()):
            batch_id = item.id or _find(work, item)
            if not batch_id:  # a file that never became a batch is not worked on
                replies.end_batch(item.file)
                continue
            replies.set_batch(item.file, batch_id)
            batch = work.client.batches.retrieve(batch_id)
            if batch.status in _ENDED:
                _collect(work, batch, item)
            else:
                waiting.append((batch_id, item.requests))
    if waiting:
        names = ", ".join(as_detail(batch_id) for batch_id, _ in waiting[:5])
        raise LabelerError(
            f"{access.where}: {sum(n for _, n in waiting):,} requests are on their way in a batch "
            f"({names}); run the same command later, or with --batch to wait for them"
        )


@contextlib.contextmanager
def _working(
    questions: Callable[[], Iterable[Question]], access: Access, replies: Replies, job: BatchJob
) -> Iterator[_Work]:
    import openai

    key = access.key()
    with (
        _clear_errors(access, key),
        openai.OpenAI(
            api_key=key or NO_KEY,
            base_url=access.base_url or None,
            timeout=access.timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        ) as client,
    ):
        yield _Work(client, key, questions, access, replies, job)


def _collect_all(work: _Work) -> dict[str, Fault]:
    """Waits for every batch and keeps its replies; gives why questions in them have none.

    Raises ConfigError where one holds something else.
    """
    faults: dict[str, Fault] = {}
    for item in work.replies.batches():
        if not work.is_ours(item):
            raise ConfigError(
                f"{item.id or item.file}: a batch of {item.model!r} at {item.endpoint} for "
                f"{item.stage} is not collected yet; do that first, with the same settings"
            )
    for item in work.replies.batches():
        faults |= _collect(work, _wait(work.client, _started(work, item), item), item)
    return faults


def _older_form(faults: dict[str, Fault], form: Form) -> Form | None:
    """The form to ask in again where every question was refused for the form it has."""
    said = [fault.detail.lower() for fault in faults.values()]
    if not said or not all(text.startswith(("http 400", "http 422")) for text in said):
        return None
    older = {older_form(form, text) for text in said}
    return older.pop() if len(older) == 1 else None


def _submit(work: _Work, form: Form, done: Collection[str]) -> dict[str, Fault]:
    """Hands over all that is not kept, not ``done`` and fits the budget; gives what does not.

    ``done`` are keys of questions that a batch had and did not answer.
    """
    faults: dict[str, Fault] = {}
    replies, job = work.replies, work.job
    for requests, path in _files(work, form, done, faults):
        with path.open("rb") as file:
            uploaded = work.client.files.create(file=("requests.jsonl", file), purpose="batch")
        if not uploaded.id:  # a server that answers something else altogether
            raise LabelerError(f"{work.access.where}: does not take files of requests")
        replies.begin_batch(uploaded.id, requests, job.stage, work.access, job.price)
        path.unlink()
        item = next(item for item in replies.batches() if item.file == uploaded.id)
        _started(work, item)
    return faults


def _files(
    work: _Work, form: Form, done: Collection[str], faults: dict[str, Fault]
) -> Iterator[tuple[list[Batched], Path]]:
    """Files of requests within the limits, with their keys; what exceeds the budget is a fault."""
    access, replies, job = work.access, work.replies, work.job
    budget = Budget(job.limit, replies.spent(job.price, job.prices))
    path = job.folder / "batch.jsonl.part"
    seen = set(done)
    requests: list[Batched] = []
    # Few differ, and there may be many questions.
    parameters: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("w", encoding="utf-8"))
        for question in work.questions():
            key = key_of(question, access)
            reply = replies.find(key)
            if key in seen or (reply is not None and not job.again(question, reply)):
                continue
            seen.add(key)
            most = most_usage(question)
            price = job.price
            dearest = price.of(most.prompt_tokens, most.completion_tokens) if price else 0.0
            if not budget.reserve(dearest, wait=False):
                faults[key] = Fault(
                    "budget", f"not asked: the budget of ${budget.limit:,.2f} is used up"
                )
                continue
            body = request_body(question, access, form)
            line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")
            shape = parameters_of(question, access)
            shape = parameters.setdefault(shape, shape)
            requests.append(Batched(key, question.hash, shape, most))
            if len(requests) >= MAX_REQUESTS or file.tell() >= MAX_BYTES:
                file.close()
                yield requests, path
                requests = []
                file = stack.enter_context(path.open("w", encoding="utf-8"))
        file.close()
        if requests:
            yield requests, path
        path.unlink(missing_ok=True)


def _started(work: _Work, item: OpenBatch) -> str:
    """The id of the batch that a file became; it becomes one now if it did not before."""
    import openai

    if item.id:
        return item.id
    tries = 0
    # The process may have ended between the start of a batch and the note of its id.
    while not (found := _find(work, item)):
        # The client would try again by itself, and there would be two batches.
        once = work.client.with_options(max_retries=0)
        try:
            found = once.batches.create(
                input_file_id=item.file, endpoint=ENDPOINT, completion_window="24h"
            ).id
            break
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
            tries += 1
            if tries == MAX_CREATIONS:
                raise
            time.sleep(CREATION_PAUSE)
    work.replies.set_batch(item.file, found)
    return found


def _find(work: _Work, item: OpenBatch) -> str:
    """The id of the batch that the endpoint made of a file; empty when it made none."""
    listed = itertools.islice(work.client.batches.list(limit=100), MAX_LISTED)
    return next((batch.id for batch in listed if batch.input_file_id == item.file), "")


def _wait(client: openai.OpenAI, batch_id: str, item: OpenBatch) -> Batch:
    """The batch when it has ended; asks now and then."""
    with tqdm(total=item.requests, desc=f"batch {batch_id}", unit=" replies", disable=None) as bar:
        while True:
            batch = client.batches.retrieve(batch_id)
            counts = batch.request_counts
            if counts is not None:
                bar.update(max(0, min(counts.completed + counts.failed, item.requests) - bar.n))
            if batch.status in _ENDED:
                return batch
            time.sleep(PAUSE)


def _collect(work: _Work, batch: Batch, item: OpenBatch) -> dict[str, Fault]:
    """Keeps every reply of a batch that has ended; gives why others have none."""
    access, replies, job = work.access, work.replies, work.job
    places: dict[str, tuple[int, int]] = {}
    path = job.folder / "answers.jsonl.part"
    try:
        with path.open("wb") as file:
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id:
                    places |= download(work.client, file_id, file)
        faults: dict[str, Fault] = {}
        kept = 0
        with path.open("rb") as file:
            for question in work.questions():
                key = key_of(question, access)
                request = replies.last_request(key)
                if key not in places or request is None:
                    continue
                line = _line(file, places.pop(key), work.key)
                fault = _keep(work, line, request, question, access)
                if fault is None:
                    kept += 1
                else:
                    faults[key] = fault
            # What other settings asked for is paid for as well, and kept for them.
            for key in list(places):
                asked = _asked(work, item.file, key)
                request = replies.last_request(key)
                if asked is not None and request is not None:
                    line = _line(file, places.pop(key), work.key)
                    kept += _keep(work, line, request, *asked) is None
    finally:
        path.unlink(missing_ok=True)
    if places:
        logger.warning("batch %s: %d answers to what is not known are lost", batch.id, len(places))
    replies.end_batch(item.file, answered=places)
    if batch.status != "completed":
        raise LabelerError(
            f"{access.where}: batch {batch.id} {batch.status}{_why(batch, work.key)}; {kept} of "
            f"{item.requests} replies came and are kept. Run the same command again for the others"
        )
    return faults


def _line(file: BinaryIO, place: tuple[int, int], secret: str) -> str:
    start, length = place
    file.seek(start)
    return without_key(file.read(length).decode("utf-8", "replace"), secret)


def _keep(work: _Work, line: str, request: int, question: Question, access: Access) -> Fault | None:
    """Keeps the reply in a line of answers; why there is none."""
    replies, price = work.replies, work.job.price
    result = read_line(line, question)
    if isinstance(result, Fault):
        replies.drop(request)
        return result
    found, usage = result
    if isinstance(found, Reply):
        replies.keep(request, question, access, found, price)
        return None
    replies.settle(request, usage, price)
    return found


def _asked(work: _Work, file: str, key: str) -> tuple[Question, Access] | None:
    """What was asked under a key when a batch was handed over, without its text, and of whom.

    None where that is not known: an answer of nobody's, or to an earlier version.
    """
    batched = work.replies.batched(file, key)
    if batched is None:
        return None
    shape = json.loads(batched.parameters)
    question = stand_in(batched.prompt_hash, shape["schema_name"], shape["schema"], batched.most)
    access = replace(work.access, temperature=shape["temperature"])
    return (question, access) if key_of(question, access) == key else None


def _why(batch: Batch, secret: str) -> str:
    """What the server says of a batch that failed."""
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    said = "; ".join(str(error.message) for error in errors[:3])
    return f" ({as_detail(without_key(said, secret))})" if said else ""


@contextlib.contextmanager
def _clear_errors(access: Access, key: str) -> Iterator[None]:
    """Errors of the client as one clear message without the key."""
    import openai

    try:
        yield
    except openai.OpenAIError as error:
        if isinstance(error, openai.APIStatusError) and error.status_code < 400:
            location = without_key(error.response.headers.get("location", ""), key)
            raise access.redirected(error.status_code, location) from None
        said = as_detail(without_key(str(error), key))
        raise LabelerError(
            f"{access.where}: {said}; what was handed over is remembered. If there is no batch "
            "endpoint, leave --batch out"
        ) from None
