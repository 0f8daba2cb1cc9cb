"""How are many questions asked at half the price, by an endpoint that answers within a day?

What is not kept yet is uploaded as one or more files of requests, each of which becomes a batch.
Which, is remembered with the kept replies before and after each step, so that a process that ends
while it waits, or is killed at any point, goes on with the same batches. A batch that is ready is
collected into the kept replies: every reply as if it had been asked for alone.

Source: OpenAI, "Batch API" (files with purpose ``batch``, at most 50,000 lines and 200 MB).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tqdm import tqdm

from builder.endpoint.access import NO_KEY, Access, as_detail, without_key
from builder.endpoint.bodies import Form, most_usage, read_body, request_body
from builder.endpoint.budget import Budget
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import Price
from builder.endpoint.replies import OpenBatch, Replies, Usage, key_of
from builder.errors import ConfigError, LabelerError

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

#: Of one file of requests; hosted endpoints take 50,000 lines and 200 MB.
MAX_REQUESTS, MAX_BYTES = 40_000, 150_000_000
#: Bytes of all answers of one batch.
MAX_ANSWERS = 1_000_000_000
#: Seconds between two looks at a batch.
PAUSE = 30.0
ENDPOINT: Final = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What a batch is for: the stage it is counted for, at which price, within which budget.

    ``again`` tells which kept replies are to be asked for again; ``folder`` takes files of
    requests and answers while they are worked on.
    """

    stage: str
    folder: Path
    price: Price | None
    budget: Budget
    again: Callable[[Reply], bool]


def answer_batch(
    questions: Callable[[], Iterable[Question]], access: Access, replies: Replies, job: BatchJob
) -> dict[str, Fault]:
    """Asks all questions whose reply is not kept, and waits for the replies, which are then kept.

    Gives, by key, why a question has no reply. Questions are gone through several times, so that
    they need not be in memory. Raises LabelerError when the endpoint has no batches, or one failed
    or expired (what it did answer is kept), and ConfigError for a batch of another model.
    """
    import openai

    key = access.key()
    faults: dict[str, Fault] = {}
    with (
        _clear_errors(access, key),
        openai.OpenAI(
            api_key=key or NO_KEY, base_url=access.base_url or None, timeout=access.timeout
        ) as client,
    ):
        running = replies.batches()
        if not running:
            faults |= _submit(client, questions(), access, replies, job)
            running = replies.batches()
        for item in running:
            if (item.stage, item.model, item.endpoint) != (job.stage, access.model, access.where):
                raise ConfigError(
                    f"{item.id or item.file}: a batch of {item.model!r} at {item.endpoint} for "
                    f"{item.stage} is not collected yet; do that first, with the same settings"
                )
            batch = _wait(client, _started(client, item, replies), item)
            faults |= _collect(client, batch, item, questions(), access, replies, job, key)
    return faults


def _submit(
    client: openai.OpenAI,
    questions: Iterable[Question],
    access: Access,
    replies: Replies,
    job: BatchJob,
) -> dict[str, Fault]:
    """Hands over all that is not kept and fits the budget; gives what does not."""
    faults: dict[str, Fault] = {}
    for requests, path in _files(questions, access, replies, job, faults):
        with path.open("rb") as file:
            uploaded = client.files.create(file=("requests.jsonl", file), purpose="batch")
        if not uploaded.id:  # a server that answers something else altogether
            raise LabelerError(f"{access.where}: does not take files of requests")
        replies.begin_batch(uploaded.id, requests, job.stage, access, job.price)
        path.unlink()
        item = next(item for item in replies.batches() if item.file == uploaded.id)
        _started(client, item, replies)
    return faults


def _files(
    questions: Iterable[Question],
    access: Access,
    replies: Replies,
    job: BatchJob,
    faults: dict[str, Fault],
) -> Iterator[tuple[list[tuple[str, Usage]], Path]]:
    """Files of requests within the limits, with their keys; what exceeds the budget is a fault."""
    path = job.folder / "batch.jsonl.part"
    seen: set[str] = set()
    requests: list[tuple[str, Usage]] = []
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("w", encoding="utf-8"))
        for question in questions:
            key = key_of(question, access)
            reply = replies.find(key)
            if key in seen or (reply is not None and not job.again(reply)):
                continue
            seen.add(key)
            most = most_usage(question)
            price = job.price
            dearest = price.of(most.prompt_tokens, most.completion_tokens) if price else 0.0
            if not job.budget.reserve(dearest, wait=False):
                faults[key] = Fault(
                    "budget", f"not asked: the budget of ${job.budget.limit:,.2f} is used up"
                )
                continue
            body = request_body(question, access, Form())
            line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line) + "\n")
            requests.append((key, most))
            if len(requests) >= MAX_REQUESTS or file.tell() >= MAX_BYTES:
                file.close()
                yield requests, path
                requests = []
                file = stack.enter_context(path.open("w", encoding="utf-8"))
        file.close()
        if requests:
            yield requests, path
        path.unlink(missing_ok=True)


def _started(client: openai.OpenAI, item: OpenBatch, replies: Replies) -> str:
    """The id of the batch that a file became; it becomes one now if it did not before."""
    if item.id:
        return item.id
    # The process may have ended between the start of a batch and the note of its id.
    found = next(
        (batch.id for batch in client.batches.list() if batch.input_file_id == item.file), ""
    )
    if not found:
        found = client.batches.create(
            input_file_id=item.file, endpoint=ENDPOINT, completion_window="24h"
        ).id
    replies.set_batch(item.file, found)
    return found


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


def _collect(
    client: openai.OpenAI,
    batch: Batch,
    item: OpenBatch,
    questions: Iterable[Question],
    access: Access,
    replies: Replies,
    job: BatchJob,
    secret: str,
) -> dict[str, Fault]:
    """Keeps every reply of a batch that has ended; gives why others have none."""
    places: dict[str, tuple[int, int]] = {}
    path = job.folder / "answers.jsonl.part"
    try:
        with path.open("wb") as file:
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id:
                    places |= _download(client, file_id, file)
        faults: dict[str, Fault] = {}
        kept = 0
        with path.open("rb") as file:
            for question in questions:
                key = key_of(question, access)
                request = replies.last_request(key)
                if key not in places or request is None:
                    continue
                start, length = places.pop(key)
                file.seek(start)
                text = without_key(file.read(length).decode("utf-8", "replace"), secret)
                result = _read_line(text, question)
                if isinstance(result, Fault):
                    faults[key] = result
                    replies.drop(request)
                else:
                    fault_or_reply, usage = result
                    if isinstance(fault_or_reply, Reply):
                        replies.keep(request, question, access, fault_or_reply, job.price)
                        kept += 1
                    else:
                        faults[key] = fault_or_reply
                        replies.settle(request, usage, job.price)
    finally:
        path.unlink(missing_ok=True)
    replies.end_batch(item.file)
    if batch.status != "completed":
        raise LabelerError(
            f"{access.where}: batch {batch.id} {batch.status}{_why(batch, secret)}; {kept} of "
            f"{item.requests} replies came and are kept. Run the same command again for the others"
        )
    return faults


def _download(client: openai.OpenAI, file_id: str, file: Any) -> dict[str, tuple[int, int]]:
    """Appends a file of answers; where the line of each key lies in it (start, length)."""
    start = file.tell()
    with client.files.with_streaming_response.content(file_id) as response:
        for chunk in response.iter_bytes():
            file.write(chunk)
            if file.tell() > MAX_ANSWERS:
                raise LabelerError(f"{file_id}: more than {MAX_ANSWERS:,} bytes of answers")
    file.write(b"\n")
    file.flush()
    places: dict[str, tuple[int, int]] = {}
    with Path(file.name).open("rb") as lines:
        lines.seek(start)
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
                key = json.loads(line)["custom_id"]
                if isinstance(key, str):
                    places[key] = (start, len(line))
            start += len(line)
    return places


def _read_line(line: str, question: Question) -> Fault | tuple[Reply | Fault, Usage]:
    """What a line of answers says of one question; a Fault where the server did not answer it."""
    try:
        table = json.loads(line)
        response = table["response"]
        status, body = response["status_code"], response["body"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return Fault("http", f"no reply came with the batch: {as_detail(line)}")
    if status != 200:
        return Fault("http", f"HTTP {as_detail(str(status))}: {as_detail(json.dumps(body))}")
    return read_body(json.dumps(body), question)


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
        said = as_detail(without_key(str(error), key))
        raise LabelerError(
            f"{access.where}: {said}; what was handed over is remembered. If there is no batch "
            "endpoint, leave --batch out"
        ) from None
