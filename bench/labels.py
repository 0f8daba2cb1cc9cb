"""What does labelling cost beyond the model's own work? With a server that answers at once.

    python bench/labels.py [POLES] [--in-flight 16] [--judged 0] [--json]

Labels so many made-up poles (10 examples and 10 texts for contrast each, prompts of about 11,000
characters) through a server in a process of its own that sends a fixed answer, then asks ``judged``
further short questions for each pole, as a scorer does. Prints seconds, requests per second, and
the peak memory of this process over what it had before the first request. Run it with two numbers
of poles to see that memory does not grow with them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from builder.config import LabelSettings  # noqa: E402
from builder.endpoint.access import Access  # noqa: E402
from builder.endpoint.client import ChatClient  # noqa: E402
from builder.endpoint.messages import Question  # noqa: E402
from builder.endpoint.replies import Replies  # noqa: E402
from builder.labels.evidence import Evidence  # noqa: E402
from builder.labels.explain import label_poles  # noqa: E402
from builder.records import Label  # noqa: E402
from tests.labels.making import background_of, evidence_of, insert  # noqa: E402

CONTENT = {"label": "a lighthouse", "explanation": "All name it.", "kind": "topic", "confidence": 1}


class Instant(asyncio.Protocol):
    """Answers every request with the same chat completion, without reading it."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(self.data) < end + 4 + length:
                return
            self.data = self.data[end + 4 + length :]
            self.transport.write(self.answer)


def serve(pipe: Connection) -> None:
    """Serves until the process is ended; sends its port through the pipe."""
    message = {"role": "assistant", "content": json.dumps(CONTENT)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 2500, "completion_tokens": 30, "total_tokens": 2530}
    body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    Instant.answer = head.encode() + b"\r\n\r\n" + body

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def poles(n: int) -> Iterator[Evidence]:
    """Evidence of so many poles, each with a prompt of its own."""
    one = evidence_of(lambda rng, text: insert(rng, text, "lighthouse"))
    for number in range(n):
        yield replace(one, direction=f"d{number}", promoted=(f" token{number}",))


def judge(client: ChatClient, n: int) -> None:
    """Asks so many further questions of the length of a scorer's."""

    def ask(number: int) -> None:
        user = f"Question {number}. " + "Does the text fit the label? " * 60
        client.ask(Question("You judge.", user, f"{number:032x}", "verdict", {}, 20))

    with ThreadPoolExecutor(16) as pool:
        for start in range(0, n, 200):
            list(pool.map(ask, range(start, min(start + 200, n))))


def measure(port: int, n: int, in_flight: int, judged: int) -> dict[str, float]:
    settings = LabelSettings(
        labeler="openai",
        model="instant",
        base_url=f"http://127.0.0.1:{port}/v1",
        concurrency=in_flight,
    )
    background = background_of(documents=400)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        replies = stack.enter_context(Replies(Path(folder, "r.sqlite")))
        client = stack.enter_context(ChatClient(Access.of(settings), replies, stage="labels"))
        list(label_poles(poles(1), background, settings, client))
        before, began = peak_mb(), time.perf_counter()
        labels = sum(
            isinstance(result, Label)
            for results in label_poles(poles(n), background, settings, client)
            for result in results
        )
        labelled = time.perf_counter()
        judge(client, n * judged)
        ended = time.perf_counter()
    if labels != n:
        raise SystemExit(f"{n - labels} of {n} poles have no label")
    return {
        "poles": n,
        "label_seconds": labelled - began,
        "judge_seconds": ended - labelled,
        "requests_per_second": (n + n * judged) / (ended - began),
        "peak_mb_over_start": peak_mb() - before,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("poles", type=int, nargs="?", default=2000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--judged", type=int, default=0, help="further questions for each pole")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        found = measure(here.recv(), options.poles, options.in_flight, options.judged)
    finally:
        server.terminate()
        server.join()
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name}: {value:,.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
