"""What does a file of answers from a batch hold? A line of JSON for each question, in any order."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.endpoint.access import as_detail
from builder.endpoint.bodies import read_body
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.replies import Usage
from builder.errors import LabelerError

if TYPE_CHECKING:
    import openai

#: Bytes of all answers of one batch.
MAX_ANSWERS = 1_000_000_000


def download(client: openai.OpenAI, file_id: str, file: Any) -> dict[str, tuple[int, int]]:
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


def read_line(line: str, question: Question) -> Fault | tuple[Reply | Fault, Usage]:
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
